"""The reward model's own trunk: its loss by hand, its reading by halves and together, and what it learns."""

from dataclasses import replace

import pytest
import torch

from tests.unit.trainer.core.language import language_model
from trainer.adapters.policies import LoraSettings
from trainer.adapters.trunks import Kind, RewardTrunk, make_trunk
from trainer.core.packing import Group
from trainer.core.reward import fit_ensemble
from trainer.core.reward_data import RewardData, folds_of
from trainer.core.reward_fit import CrossFitted, RewardConfig, loss
from trainer.core.reward_trunk import Joint, Texts, accumulate, group_of, read_scores, train_trunk, units_of
from trainer.core.rollout import look

CONFIG = RewardConfig(heads=4, l2_grid=(0.01,), folds=2, trunk="lora", trunk_rank=4)
A, B = 3, 4
"""Tokens of the letters "a" and "b"."""


def trunk_of(kind: Kind = "lora") -> RewardTrunk:
    return make_trunk(language_model(), kind, LoraSettings(rank=4, alpha=8, top_share=1.0))


def labelled(trunk: RewardTrunk, texts: Texts, *, pairs: bool = True, thumbs: bool = True) -> RewardData:
    """Answers 2n and 2n + 1 stand together: the first of them is chosen, and gets a thumb up."""
    n = len(texts.answers)
    even = torch.arange(0, n, 2)
    groups = {prompt: i for i, prompt in enumerate(dict.fromkeys(texts.prompts))}
    features_NF = look(trunk, texts.prompts, texts.answers, log_probs_too=False).features_NF
    return RewardData(
        features_NF=features_NF,
        lengths_N=torch.tensor([len(a) for a in texts.answers]),
        groups_N=torch.tensor([groups[p] for p in texts.prompts]),
        pairs_P2=torch.stack([even, even + 1], 1) if pairs else torch.zeros(0, 2, dtype=torch.long),
        pair_weights_P=torch.linspace(0.5, 1.5, len(even)) if pairs else torch.zeros(0),
        rated_R=torch.arange(n if thumbs else 0),
        labels_R=((torch.arange(n) + 1) % 2).float() if thumbs else torch.zeros(0),
        rating_weights_R=torch.linspace(1.5, 0.5, n) if thumbs else torch.zeros(0),
        raters_R=torch.arange(n) % 3 if thumbs else torch.zeros(0, dtype=torch.long),
    )


def random_texts(n: int, seed: int = 0, prompts: int = 0) -> Texts:
    """`n` answers of 3 to 6 letters, two to a prompt, or all of them to `prompts` prompts."""
    generator = torch.Generator().manual_seed(seed)

    def word(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 23, (length,), generator=generator).tolist())

    asked = [word(5 + i % 4) for i in range(prompts or n // 2)]
    return Texts(tuple(asked[(i // 2) % len(asked)] for i in range(n)), tuple((*word(3 + i % 4), 2) for i in range(n)))


def joint_of(data: RewardData, config: RewardConfig = CONFIG) -> Joint:
    """Heads away from their optimum, and offsets away from zero."""
    generator = torch.Generator().manual_seed(0)
    joint = Joint.start(data, config, generator)
    with torch.no_grad():
        for parameter in joint.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return joint


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_answers_behind_one_prompt_score_as_each_does_alone(kind: Kind) -> None:
    trunk, texts = trunk_of(kind), random_texts(8, prompts=2)
    with torch.no_grad():
        for parameter in trunk.trunk_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    joint = joint_of(labelled(trunk, texts, thumbs=False))
    shared, read = read_scores(trunk, joint, [group_of(unit, texts) for unit in units_of(joint.data)])
    alone = [Group(texts.prompts[n], (texts.answers[n],), (n,)) for n in range(8)]
    separate, read_alone = read_scores(trunk, joint, alone)
    torch.testing.assert_close(shared, separate, atol=1e-5, rtol=1e-5)
    assert read < read_alone


def test_a_step_on_two_labels_has_the_loss_that_is_worked_out_by_hand() -> None:
    # One head, no smoothing: of the pair's share 1/2 comes -log sigma(0.3 - 0.1), of the thumb's 1/2 -log sigma(0.3).
    texts = Texts(((5, 6), (5, 6)), ((7, 2), (8, 2)))
    data = replace(labelled(trunk_of(), texts), rated_R=torch.tensor([0]), labels_R=torch.ones(1))
    data = replace(data, rating_weights_R=torch.ones(1), raters_R=torch.tensor([-1]))
    config = replace(CONFIG, heads=1, smoothing=0.0)
    joint = Joint(data, config, 0.01, torch.ones(1, 1))
    scores = torch.tensor([[0.3], [0.1]], requires_grad=True)
    value = joint.loss(scores, [0], [0])
    assert float(value.detach()) == pytest.approx(0.5 * 0.598139 + 0.5 * 0.554355, abs=1e-5)
    value.backward()
    # d/ds0 = -(1 - sigma(0.2)) / 2 - (1 - sigma(0.3)) / 2; d/ds1 = (1 - sigma(0.2)) / 2.
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[-0.4378607], [0.2250830]]), atol=1e-5, rtol=0)


def test_the_gradient_of_a_step_on_all_labels_is_that_of_the_closed_fit_s_loss() -> None:
    trunk, texts = trunk_of(), random_texts(12, prompts=3)
    data = labelled(trunk, texts)
    config = replace(CONFIG, one_sided_raters=99)
    joint = joint_of(data, config)
    tokens = accumulate(trunk, joint, units_of(data), texts)
    found = [p.grad.clone() for p in (*joint.parameters(), *trunk.trunk_parameters()) if p.grad is not None]
    assert tokens > 0 and len(found) == len(joint.parameters()) + len(trunk.trunk_parameters())
    for parameter in (*joint.parameters(), *trunk.trunk_parameters()):
        parameter.grad = None
    scores_NH, _ = read_scores(trunk, joint, [group_of(unit, texts) for unit in units_of(data)])
    weights_GH = bootstrap_of(data, config)
    whole = loss(data, config, scores_NH, weights_GH, joint.offset_UH) / config.heads
    penalty = 0.5 * joint.l2 * joint.weight_FH.square().sum()
    penalty = penalty + 1e-4 * (joint.bias_H.square().sum() + joint.length_LH.square().sum())
    (whole + penalty / config.heads).backward()
    for parameter, gradient in zip((*joint.parameters(), *trunk.trunk_parameters()), found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


def bootstrap_of(data: RewardData, config: RewardConfig) -> torch.Tensor:
    """The weights that `Joint.start` draws from seed 0, after the folds."""
    from trainer.core.reward_fit import bootstrap

    generator = torch.Generator().manual_seed(0)
    folds_of(data.groups_N, config.folds, generator)
    return bootstrap(int(data.groups_N.max()) + 1, config.heads, generator)


def test_many_labels_on_one_prompt_are_read_a_few_at_a_time() -> None:
    data = labelled(trunk_of(), random_texts(20, prompts=1))
    units = units_of(data)
    assert [unit.labels for unit in units] == [4, 4, 4, 4, 4, 4, 4, 2]
    assert sorted(n for unit in units for n in unit.pairs) == list(range(10))
    assert sorted(n for unit in units for n in unit.rated) == list(range(20))
    assert units[0].rows == (0, 1, 2, 3, 4, 5, 6, 7)


def order_texts(n: int, seed: int) -> Texts:
    """Pairs of answers of the same twelve letters: in the chosen one "a" comes before "b"."""
    generator = torch.Generator().manual_seed(seed)
    prompts: list[tuple[int, ...]] = []
    answers: list[tuple[int, ...]] = []
    for _ in range(n):
        prompt = tuple(torch.randint(5, 23, (3,), generator=generator).tolist())
        others = torch.randint(5, 23, (12,), generator=generator).tolist()
        i, j = sorted(torch.randperm(11, generator=generator)[:2].tolist())
        for first, second in ((A, B), (B, A)):
            made = list(others)
            made[i], made[j] = first, second
            answers.append((*made, 2))
            prompts.append(prompt)
    return Texts(tuple(prompts), tuple(answers))


def either_texts(n: int, seed: int) -> Texts:
    """The chosen answer has "a" or "b", the rejected one both or neither: no sum over letters can tell them."""
    generator = torch.Generator().manual_seed(seed)

    def answer(a: int, b: int) -> tuple[int, ...]:
        letters = torch.randint(5, 23, (4,), generator=generator).tolist()
        i, j = torch.randperm(4, generator=generator)[:2].tolist()
        letters[i] = A if a else letters[i]
        letters[j] = B if b else letters[j]
        return (*letters, 2)

    prompts: list[tuple[int, ...]] = []
    answers: list[tuple[int, ...]] = []
    for _ in range(n):
        prompts += [tuple(torch.randint(5, 23, (3,), generator=generator).tolist())] * 2
        which, both = torch.randint(0, 2, (2,), generator=generator).tolist()
        answers += [answer(which, 1 - which), answer(both, both)]
    return Texts(tuple(prompts), tuple(answers))


def learned(train: Texts, held: Texts, config: RewardConfig, kind: Kind) -> tuple[float, float]:
    """Held-out accuracy on the frozen trunk, and on the same one when it was trained."""
    trunk = trunk_of(kind)

    def accuracy() -> float:
        data, judged = (labelled(trunk, texts, thumbs=False) for texts in (train, held))
        _, report = fit_ensemble(data, config, torch.Generator().manual_seed(0), held_out=judged)
        assert report.pair_accuracy is not None
        return report.pair_accuracy.mean

    before = accuracy()
    train_trunk(trunk, labelled(trunk, train, thumbs=False), train, config, torch.Generator().manual_seed(0))
    return before, accuracy()


def test_a_trunk_with_an_adapter_learns_what_frozen_features_cannot_tell() -> None:
    config = replace(CONFIG, trunk_rate=1e-2, trunk_epochs=4, trunk_labels=4)
    before, after = learned(either_texts(300, 1), either_texts(150, 2), config, "lora")
    assert before < 0.65 and after > 0.85


def test_a_copy_of_the_base_learns_in_one_epoch_what_frozen_features_tell_badly() -> None:
    config = replace(CONFIG, trunk="full", trunk_rate=3e-3)
    before, after = learned(order_texts(300, 1), order_texts(150, 2), config, "full")
    assert before < 0.9 and after > before + 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    texts = order_texts(20, 1)

    def weights(seed: int) -> list[torch.Tensor]:
        trunk = trunk_of()
        data = labelled(trunk, texts)
        train_trunk(trunk, data, texts, CONFIG, torch.Generator().manual_seed(seed))
        return list(trunk.weights().values())

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_features_that_know_their_labels_are_calibrated_by_those_that_do_not() -> None:
    # The trunk "knows" its own labels by heart: the first feature is the label. Of an answer it never saw it is noise.
    generator = torch.Generator().manual_seed(0)
    n = 200
    labels = torch.randint(0, 2, (n,), generator=generator).float()
    noise = torch.randn(n, 3, generator=generator)
    known = torch.cat([2 * labels[:, None] - 1, noise[:, 1:]], 1)
    fold_N = torch.arange(n) % 2
    views = tuple(torch.where((fold_N == k)[:, None], noise, known) for k in range(2))
    data = RewardData(
        features_NF=known,
        lengths_N=torch.full((n,), 10),
        groups_N=torch.arange(n),
        rated_R=torch.arange(n),
        labels_R=labels,
        rating_weights_R=torch.ones(n),
    )
    config = RewardConfig(heads=4, remove_length=False)
    fooled, said = fit_ensemble(data, config, torch.Generator().manual_seed(0))
    honest, told = fit_ensemble(data, config, torch.Generator().manual_seed(0), cross=CrossFitted(fold_N, views))
    assert said.rating_accuracy is not None and said.rating_accuracy.mean == 1.0
    assert told.rating_accuracy is not None and told.rating_accuracy.mean < 0.6
    assert honest.temperature > 5 * fooled.temperature
