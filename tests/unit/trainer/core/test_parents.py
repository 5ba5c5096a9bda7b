"""A parent's adapter put back for a look, and log-probabilities under the policy as it is."""

import pytest
import torch

from tests.unit.trainer.core.language import policy
from trainer.core.judge import sample_answers
from trainer.core.parents import Parent, answer_log_probs
from trainer.core.rollout import SamplingConfig

PROMPTS = [[5, 6], [7, 8, 9], [10], [5, 6]]


def test_inside_the_policy_answers_as_its_parent_and_afterwards_as_before() -> None:
    made, config = policy(trained=True), SamplingConfig(max_new_tokens=6)
    before = sample_answers(made, PROMPTS, config, seed=1)
    parent = Parent(made)
    with torch.no_grad():
        for p in made.adapter_parameters():
            p.normal_(0, 0.5)
    trained = [p.detach().clone() for p in made.adapter_parameters()]
    after = sample_answers(made, PROMPTS, config, seed=1)
    with parent.active():
        again = sample_answers(made, PROMPTS, config, seed=1)
    assert again.ids == before.ids != after.ids
    assert all(torch.equal(p, was) for p, was in zip(made.adapter_parameters(), trained, strict=True))


def test_an_error_inside_puts_the_trained_weights_back_all_the_same() -> None:
    made = policy()
    parent = Parent(made)
    (first, *_) = made.adapter_parameters()
    with torch.no_grad():
        first.fill_(0.25)
    with pytest.raises(RuntimeError, match="stopped"), parent.active():
        raise RuntimeError("stopped")
    assert bool((first == 0.25).all())


def test_the_log_probability_of_an_answer_is_what_decoding_kept() -> None:
    made = policy(trained=True)
    drawn = sample_answers(made, PROMPTS, SamplingConfig(max_new_tokens=6, temperature=0.7), seed=3)
    again = answer_log_probs(made, PROMPTS, drawn.ids, temperature=0.7)
    assert torch.allclose(again.float(), drawn.log_prob_N, atol=1e-4)


def test_the_kl_to_a_parent_that_changes_nothing_is_the_kl_to_the_base() -> None:
    made = policy()
    parent = Parent(made)
    with torch.no_grad():
        for p in made.adapter_parameters():
            p.normal_(0, 0.2)
    drawn = sample_answers(made, PROMPTS, SamplingConfig(max_new_tokens=6), seed=3)
    with parent.active():
        theirs = answer_log_probs(made, PROMPTS, drawn.ids, temperature=0.8)
    assert torch.allclose((drawn.log_prob_N - theirs).float(), drawn.kl_N, atol=1e-4)
    assert drawn.kl == pytest.approx(float(drawn.kl_N.mean()), abs=1e-6)
