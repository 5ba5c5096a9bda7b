"""Sampling, and agreement of decoding, packing and plain forward passes."""

import torch

from tests.unit.trainer.core.language import EOS, language_model, policy
from trainer.core.packing import group_answers, micro_batches
from trainer.core.rollout import SamplingConfig, draw, look, sample

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [4, 4, 4]]
SAMPLING = SamplingConfig(max_new_tokens=12, temperature=0.9)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_inverse_cdf_takes_the_token_in_whose_slice_the_number_falls() -> None:
    probs = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).repeat(4, 1)
    assert draw(probs, torch.tensor([0.1, 0.2, 0.69, 0.999])).tolist() == [0, 2, 2, 3]


def test_log_probs_of_decoding_are_those_of_a_plain_forward_pass_of_each_answer_alone() -> None:
    made = policy(trained=True)
    rollouts = sample(made, PROMPTS, 4, SAMPLING, generator())
    for n, (prompt, answer) in enumerate(zip(rollouts.prompts, rollouts.answers(), strict=True)):
        tokens = torch.tensor([[*prompt, *answer]])
        logits = made.lm.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
        plain = torch.log_softmax(logits / 0.9, -1).gather(1, torch.tensor(answer)[:, None]).squeeze(1)
        torch.testing.assert_close(rollouts.log_probs_NT[n, : len(answer)], plain, atol=1e-5, rtol=1e-5)


def test_the_packed_look_gives_the_reference_whatever_the_adapter_says() -> None:
    made = policy(trained=True)
    rollouts = sample(made, PROMPTS, 4, SAMPLING, generator())
    looked = look(made.lm, rollouts.prompts, rollouts.answers(), temperature=0.9, max_tokens=40)
    base = language_model()
    for n, (prompt, answer) in enumerate(zip(rollouts.prompts, rollouts.answers(), strict=True)):
        tokens = torch.tensor([[*prompt, *answer]])
        logits = base.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
        plain = torch.log_softmax(logits / 0.9, -1).gather(1, torch.tensor(answer)[:, None]).squeeze(1)
        torch.testing.assert_close(looked.log_probs_NT[n, : len(answer)], plain, atol=1e-5, rtol=1e-5)


def test_features_are_the_mean_middle_state_and_the_last_final_state_without_eos() -> None:
    lm = language_model()
    prompt, content = [5, 6, 7], [8, 9, 10]
    found = look(lm, [prompt, prompt], [[*content, EOS], content], temperature=1.0).features_NF
    output = lm.model.model(input_ids=torch.tensor([[*prompt, *content]]), output_hidden_states=True)
    middle, final = output.hidden_states[1][0, 3:], output.last_hidden_state[0, -1]
    expected = torch.cat([middle.mean(0), final])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected, atol=1e-5, rtol=1e-5)


def test_an_eos_that_is_also_the_pad_stays_under_the_mask_and_nothing_after_it() -> None:
    rollouts = sample(policy(), PROMPTS, 16, SAMPLING, generator())
    assert bool(rollouts.finished_N.any())
    for answer, done in zip(rollouts.answers(), rollouts.finished_N.tolist(), strict=True):
        assert (answer[-1] == EOS) == done
        assert EOS not in answer[:-1]
        assert done or len(answer) == SAMPLING.max_new_tokens


def test_the_same_seed_draws_the_same_answers() -> None:
    first, second = (sample(policy(), PROMPTS, 3, SAMPLING, generator(7)).answers() for _ in range(2))
    assert first == second


def test_grouping_keeps_every_answer_once_and_micro_batches_keep_to_their_tokens() -> None:
    prompts = [[1, 2, 3]] * 50 + [[4]] * 3
    answers = [[7] * (1 + i % 20) for i in range(53)]
    groups = group_answers(prompts, answers)
    assert sorted(i for g in groups for i in g.indices) == list(range(53))
    batches = micro_batches(groups, 500)
    assert sum(len(b) for b in batches) == len(groups)
    assert all(len(b) == 1 or sum(g.n_tokens for g in b) <= 500 for b in batches)
