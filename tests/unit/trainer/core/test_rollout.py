"""Sampling, and agreement of decoding, packing and plain forward passes."""

import pytest
import torch

from tests.unit.trainer.core.language import EOS, language_model, policy
from trainer.adapters.policies import LoraSettings
from trainer.core.losses import selected_log_probs
from trainer.core.packing import SHORT_ROW_TOKENS, Group, group_answers, micro_batches, pack
from trainer.core.rollout import SamplingConfig, draw, feature_layer, look, sample

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


@pytest.mark.parametrize("max_tokens", [40, 1024])  # one group a row, and groups that share rows
def test_the_packed_look_gives_the_reference_whatever_the_adapter_says(max_tokens: int) -> None:
    made = policy(trained=True)
    rollouts = sample(made, PROMPTS, 4, SAMPLING, generator())
    looked = look(made.lm, rollouts.prompts, rollouts.answers(), temperature=0.9, max_tokens=max_tokens)
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


def test_features_of_answers_that_share_their_prompt_are_those_of_each_alone() -> None:
    lm = language_model()
    answers = [[7, 8], [9], [10, 11, 12, EOS], [EOS]]
    together = look(lm, [PROMPTS[0]] * 4, answers).features_NF
    for row, answer in zip(together, answers, strict=True):
        alone = look(lm, [PROMPTS[0]], [answer]).features_NF[0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-5)


def test_short_groups_share_rows_without_seeing_one_another() -> None:
    groups = group_answers([[4, 5], [6], [7, 7, 7]], [[8], [9, 9], [10]])
    packed = pack(groups, pad_id=EOS, device=torch.device("cpu"))
    assert packed.tokens_RL.tolist() == [[4, 5, 8, 6, 9, 9, 7, 7, 7, 10]]
    assert packed.positions_RL.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 2, 3]]
    sees = packed.attend_RLL[0].int().tolist()
    assert sees[5] == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert sees[9] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_rows_are_filled_by_first_fit_up_to_the_longest_group() -> None:
    lengths = [SHORT_ROW_TOKENS, 70, 60, 50]
    groups = group_answers([[n] for n in range(4)], [[5] * (n - 1) for n in lengths])
    packed = pack(groups, pad_id=EOS, device=torch.device("cpu"))
    assert packed.spans == ((0, 0), (1, 0), (2, 0), (1, 70))
    assert packed.tokens_RL.shape == (3, SHORT_ROW_TOKENS)


@torch.no_grad()
def test_states_from_above_the_unadapted_blocks_are_those_of_a_whole_pass() -> None:
    made = policy(trained=True, lora=LoraSettings(rank=4, alpha=8, top_share=0.5))
    assert made.lm.split == 1
    looked = look(made.lm, [PROMPTS[0]], [[7, 8, 9]], keep_lower=True)
    tokens = torch.tensor([[*PROMPTS[0], 7, 8, 9]])
    positions, attend = torch.arange(8)[None], torch.ones(1, 8, 8, dtype=torch.bool).tril()
    whole = made.lm.states(tokens, positions_BT=positions, attend=attend)[-1]
    lower = looked.lower[(0,)][None]
    again = made.lm.states(tokens, positions_BT=positions, attend=attend, lower_BTD=lower)[-1]
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-5)
    plain = made.lm.model(input_ids=tokens, output_hidden_states=True)
    torch.testing.assert_close(lower, plain.hidden_states[1], atol=1e-5, rtol=1e-5)


HALF = LoraSettings(rank=4, alpha=8, top_share=0.5)


@pytest.mark.parametrize("max_tokens", [40, 1024])
def test_a_look_from_the_states_that_decoding_kept_is_the_look_from_scratch(max_tokens: int) -> None:
    made = policy(trained=True, lora=HALF, layers=4)
    assert made.lm.split == 2
    rollouts = sample(made, PROMPTS, 6, SAMPLING, generator(), keep_lower=True)
    answers = rollouts.answers()
    assert 0 < int(rollouts.finished_N.sum()) < len(answers)  # some ended, and some were cut at the limit
    scratch = look(made.lm, rollouts.prompts, answers, temperature=0.9, max_tokens=max_tokens, keep_lower=True)
    spared = look(made.lm, rollouts.prompts, answers, temperature=0.9, max_tokens=max_tokens, lower=rollouts.lower)
    torch.testing.assert_close(spared.log_probs_NT, scratch.log_probs_NT, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(spared.features_NF, scratch.features_NF, atol=1e-5, rtol=1e-5)
    for group in group_answers(rollouts.prompts, answers):
        real = [n for n, token in enumerate((*group.prompt, *sum(group.answers, ()))) if token != EOS]
        theirs, ours = scratch.lower[group.indices], spared.lower[group.indices]
        torch.testing.assert_close(ours[real], theirs[real], atol=1e-4, rtol=1e-5)


def test_the_states_of_some_rows_alone_are_those_that_they_have_among_all() -> None:
    made = policy(trained=True, lora=HALF, layers=4)
    rows = [1, 4, 5, 10]
    whole = sample(made, PROMPTS, 4, SAMPLING, generator(), keep_lower=True)
    some = sample(made, PROMPTS, 4, SAMPLING, generator(), rows=rows, keep_lower=True)
    assert whole.lower is not None and some.lower is not None
    groups = [Group(whole.prompts[n], (whole.answers()[n],), (n,)) for n in rows]
    for n, states_LD in some.lower.of(groups).items():
        torch.testing.assert_close(states_LD, whole.lower.of(groups)[n], atol=1e-5, rtol=1e-5)


def test_decoding_keeps_no_states_unless_asked_or_where_every_block_is_adapted() -> None:
    assert sample(policy(lora=HALF, layers=4), PROMPTS, 2, SAMPLING, generator()).lower is None
    everywhere = policy(lora=LoraSettings(rank=4, alpha=8, top_share=1.0), layers=4)
    rollouts = sample(everywhere, PROMPTS, 2, SAMPLING, generator(), keep_lower=True)
    assert rollouts.lower is None
    found = look(everywhere.lm, rollouts.prompts, rollouts.answers(), lower=rollouts.lower)
    torch.testing.assert_close(found.features_NF, look(everywhere.lm, rollouts.prompts, rollouts.answers()).features_NF)


def test_where_the_feature_lies_below_the_split_the_look_reads_from_the_bottom() -> None:
    made = policy(trained=True, lora=LoraSettings(rank=4, alpha=8, top_share=0.25), layers=4)
    assert (made.lm.split, feature_layer(4)) == (3, 3)
    rollouts = sample(made, PROMPTS, 3, SAMPLING, generator(), keep_lower=True)
    answers = rollouts.answers()
    found = look(made.lm, rollouts.prompts, answers, lower=rollouts.lower, keep_lower=True)
    torch.testing.assert_close(found.features_NF, look(made.lm, rollouts.prompts, answers).features_NF)
    assert len(found.lower) == len(group_answers(rollouts.prompts, answers))


def test_an_empty_answer_has_the_features_of_the_prompt_s_last_token() -> None:
    lm = language_model()
    prompt = [5, 6, 7]
    found = look(lm, [prompt, prompt], [[EOS], [8, EOS]]).features_NF[0]
    output = lm.model.model(input_ids=torch.tensor([prompt]), output_hidden_states=True)
    expected = torch.cat([output.hidden_states[1][0, -1], output.last_hidden_state[0, -1]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_log_probs_of_decoding_and_of_training_agree_in_bfloat16_to_5e_3_in_the_mean() -> None:
    made = policy(trained=True, dtype=torch.bfloat16)
    rollouts = sample(made, PROMPTS, 8, SAMPLING, generator())
    packed = pack(group_answers(rollouts.prompts, rollouts.answers()), pad_id=EOS, device=made.lm.device)
    states = made.lm.states(packed.tokens_RL, positions_BT=packed.positions_RL, attend=packed.attend_RLL)[-1]
    real = packed.mask_NT
    tokens = packed.tokens_RL.flatten()[packed.places_NT[real]]
    found = selected_log_probs(states.flatten(0, 1)[packed.sources_NT[real]], made.lm.head_weight(), tokens, 0.9)
    rows, columns = real.nonzero(as_tuple=True)
    decoded = rollouts.log_probs_NT[packed.indices_N[rows], columns]
    assert abs(float((found - decoded).mean())) < 5e-3
    assert float((found - decoded).abs().mean()) < 5e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_uniform_numbers_draw_the_same_answers() -> None:
    here, there = policy(trained=True), policy(trained=True)
    there.lm.model.to("cuda")
    there.head.to("cuda")
    expected = sample(here, PROMPTS, 4, SAMPLING, generator())
    found = sample(there, PROMPTS, 4, SAMPLING, generator())
    same = [a == b for a, b in zip(expected.answers(), found.answers(), strict=True)]
    assert sum(same) >= 11  # a number may fall on the edge of a slice
    torch.testing.assert_close(found.log_probs_NT.cpu()[same], expected.log_probs_NT[same], atol=1e-3, rtol=1e-3)
