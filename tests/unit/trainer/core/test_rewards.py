"""Several rewards as one, by hand-worked numbers."""

import pytest
import torch

from tests.unit.trainer.core.language import language_model, policy
from tests.unit.trainer.core.test_ppo import PROMPTS, SMALL
from trainer.core.collecting import collect
from trainer.core.rewards import CombinedReward, Normalized, rewards_of, thumbs_share


def test_what_people_said_has_a_ceiling_on_its_share() -> None:
    assert thumbs_share(1.0, 3.0, 0.5) == 0.25
    assert thumbs_share(3.0, 1.0, 0.5) == 0.5
    assert thumbs_share(0.0, 1.0, 0.5) == 0.0


def test_a_reward_is_normalized_on_the_reference_and_clipped() -> None:
    norm = Normalized.on(torch.tensor([1.0, 3.0, 5.0]), clip=1.5)
    assert (norm.center, norm.scale) == (3.0, 2.0)
    assert norm(torch.tensor([4.0, 3.0, -9.0])).tolist() == [0.5, 0.0, -1.5]
    assert Normalized.on(torch.tensor([7.0, 7.0]), clip=3.0)(torch.tensor([8.0])).tolist() == [1.0]


def combined(share: float) -> CombinedReward:
    """Ensemble: the first feature. Own: the length of the text, 1, 3 and 5 on the reference."""
    return CombinedReward.normalized_on(
        lambda features_NF: features_NF[:, 0],
        lambda _, prompts, texts: [float(len(p + t)) for p, t in zip(prompts, texts, strict=True)],
        share=share,
        clip=3.0,
        features_NF=torch.tensor([[-1.0], [0.0], [1.0]]),
        prompts=["", "", ""],
        texts=["a", "abc", "abcde"],
        prompt_texts={(5,): "", (6,): "xx"},
    )


def test_the_mix_is_the_weighted_mean_and_normalized_once_more() -> None:
    # On the reference both parts are -1, 0 and 1, and so is the mix: its scale is 1.
    found = combined(0.25).of(torch.tensor([[2.0], [2.0]]), [(5,), (6,)], ["abc", "abc"])
    # Own: length 3 is 0 and length 3 + 2 is 1; 0.25 * 2 + 0.75 * 0 and 0.25 * 2 + 0.75 * 1.
    assert found.tolist() == pytest.approx([0.5, 1.25])


def test_rewards_that_disagree_keep_the_scale_of_one_alone() -> None:
    against = CombinedReward.normalized_on(
        lambda features_NF: features_NF[:, 0],
        lambda features_NF, *_: (-features_NF[:, 0]).tolist(),
        share=0.75,
        clip=3.0,
        features_NF=torch.tensor([[-1.0], [0.0], [1.0]]),
        prompts=["", "", ""],
        texts=["", "", ""],
        prompt_texts={(5,): ""},
    )
    # The mix is half the ensemble, -0.5, 0 and 0.5; divided by its spread of 0.5 it is the ensemble again.
    assert against.of(torch.tensor([[2.0]]), [(5,)], [""]).tolist() == pytest.approx([2.0])


def test_either_kind_of_reward_is_asked_in_its_own_way() -> None:
    lm, features = language_model(), torch.tensor([[0.5]])
    assert rewards_of(lambda features_NF: features_NF[:, 0] * 2, lm, features, [(5,)], [(3, 4, 2)]).tolist() == [1.0]
    # Tokens 3 and 4 are "a" and "b", 2 ends the answer: length 2 is -0.5, the share of which is all.
    assert rewards_of(combined(0.0), lm, features, [(5,)], [(3, 4, 2)]).tolist() == pytest.approx([-0.5])


def test_ppo_collects_with_a_reward_that_reads_texts() -> None:
    made = policy()
    own = CombinedReward(
        lambda features_NF: features_NF[:, 0],
        lambda _, prompts, texts: [len(t) + 100.0 * (p == "ten") for p, t in zip(prompts, texts, strict=True)],
        0.0,
        Normalized(0.0, 1.0, 1e9),
        Normalized(0.0, 1.0, 1e9),
        {tuple(p): "ten" if p[0] == 10 else "other" for p in PROMPTS},
    )
    batch = collect(made, own, PROMPTS, SMALL, torch.Generator().manual_seed(0))
    expected = [
        len(made.lm.decode(answer)) + 100.0 * (prompt[0] == 10)
        for prompt, answer in zip(batch.rollouts.prompts, batch.rollouts.answers(), strict=True)
    ]
    assert batch.scores_N.tolist() == expected and max(expected) >= 100
