"""DPO and KTO: losses against hand-worked numbers, the loop around them, and that they learn."""

import math
from dataclasses import replace

import pytest
import torch

from schemas.errors import NotEnoughData
from tests.unit.trainer.core.language import EOS, language_model, policy
from trainer.core import direct
from trainer.core.direct import (
    DirectConfig,
    DirectData,
    DirectReport,
    DirectStep,
    Method,
    dpo_loss,
    improve_directly,
    kto_loss,
    log_probs_of,
    pair_units,
    set_aside,
    thumb_units,
)
from trainer.core.models import Policy
from trainer.core.packing import group_answers
from trainer.core.rollout import SamplingConfig, sample

SAMPLING = SamplingConfig(max_new_tokens=8, temperature=0.9)
PROMPTS = tuple((5 + n % 7, 6 + n % 5, 7 + n % 3) for n in range(24))
LIKED, DISLIKED = (9, 9, 10, EOS), (11, 12, 11, 12, EOS)
SMALL = DirectConfig(epochs=1, batch_labels=8, learning_rate=1e-2, checks=2, look_prompts=4, check_share=0.0)


def comparisons() -> DirectData:
    """Twenty-four prompts, on each an answer of the liked kind beside one of the other."""
    return DirectData(
        prompts=tuple(p for p in PROMPTS for _ in range(2)),
        answers=tuple(a for _ in PROMPTS for a in (LIKED, DISLIKED)),
        pairs=tuple((2 * n, 2 * n + 1) for n in range(len(PROMPTS))),
        pair_weights=(1.0,) * len(PROMPTS),
    )


def thumbs() -> DirectData:
    made = comparisons()
    n = len(made.answers)
    return replace(
        made,
        pairs=(),
        pair_weights=(),
        rated=tuple(range(n)),
        liked=(True, False) * (n // 2),
        rating_weights=(1.0,) * n,
    )


def trained(
    method: Method, config: DirectConfig = SMALL, *, made: Policy | None = None, **more: object
) -> DirectReport:
    options = {"sampling": SAMPLING, "kl_budget": 1e9, "seed": 0} | more
    data = comparisons() if method == "dpo" else thumbs()
    return improve_directly(made or policy(), method, data, first_feature, PROMPTS, config, **options)  # type: ignore[arg-type]


def first_feature(features_NF: torch.Tensor) -> torch.Tensor:
    return features_NF[:, 0]


def test_the_loss_of_dpo_is_eq_7_and_smoothing_adds_its_share_of_the_margin() -> None:
    # h = 1 + 0.5 = 1.5; -log sigma(0.15) = ln(1 + e^-0.15) = 0.620957; smoothing adds s * 0.15.
    chosen, rejected, weights = torch.tensor([1.0]), torch.tensor([-0.5]), torch.tensor([2.0])
    assert float(dpo_loss(chosen, rejected, weights, beta=0.1)) == pytest.approx(2 * 0.620957, abs=1e-5)
    assert float(dpo_loss(chosen, rejected, weights, beta=0.1, smoothing=0.2)) == pytest.approx(
        2 * (0.620957 + 0.03), abs=1e-5
    )


def test_the_gradient_of_dpo_pushes_by_how_wrong_the_order_is() -> None:
    # -beta sigma(-beta h) w for the chosen, the opposite for the rejected: 0.5 * sigma(0.5) * 3 = 0.933689.
    chosen = torch.tensor([-1.0], requires_grad=True)
    rejected = torch.tensor([0.0], requires_grad=True)
    dpo_loss(chosen, rejected, torch.tensor([3.0]), beta=0.5).backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert float(chosen.grad) == pytest.approx(-0.933689, abs=1e-5)
    assert float(rejected.grad) == pytest.approx(0.933689, abs=1e-5)


def test_the_loss_of_kto_is_eq_8() -> None:
    # Wanted: 1 - sigma(0.5 (1 - 0.5)) = 0.437823. Not: 1 - sigma(0.5 (0.5 + 2)) = 0.222700, twice.
    ratio = torch.tensor([1.0, -2.0], requires_grad=True)
    loss = kto_loss(ratio, torch.tensor([True, False]), torch.tensor([1.0, 2.0]), torch.tensor(0.5), beta=0.5)
    assert float(loss.detach()) == pytest.approx(0.437823 + 2 * 0.222700, abs=1e-5)
    loss.backward()
    # -beta sigma(1 - sigma): -0.5 * 0.562177 * 0.437823, and 2 * 0.5 * 0.777300 * 0.222700.
    assert ratio.grad is not None
    assert ratio.grad.tolist() == pytest.approx([-0.123067, 0.173105], abs=1e-5)


def test_both_verdicts_of_kto_weigh_the_same_and_a_pair_is_one_of_each() -> None:
    data = DirectData(
        ((4,), (4,), (5,)), ((9, EOS), (10, EOS), (9, EOS)), ((0, 1),), (0.5,), (0, 2, 2), (True, True, False),
        (1.0, 2.0, 0.25),
    )  # fmt: skip
    units = thumb_units(data, DirectConfig(desirable=2.0))
    # Up: answer 0 weighs 1 + 0.5, answer 2 weighs 2. Down: answer 1 weighs 0.5, answer 2 weighs 0.25; times 3.5 / 0.75.
    assert [(u.answers, u.liked) for u in units] == [((0,), True), ((1,), False), ((2,), False), ((2,), True)]
    assert [u.weight for u in units] == pytest.approx([3.0, 0.5 * 3.5 / 0.75, 0.25 * 3.5 / 0.75, 4.0])


def test_the_log_prob_of_an_answer_is_that_of_a_plain_forward_pass() -> None:
    made = policy(trained=True)
    prompts, answers = [(5, 6), (5, 6), (7,)], [(9, 10, EOS), (3, EOS), (4, 4, 4, EOS)]
    found = log_probs_of(made.lm, group_answers(prompts, answers), 3, 0.9)
    for n, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        logits = made.lm.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        plain = torch.log_softmax(logits / 0.9, -1).gather(1, torch.tensor(answer)[:, None]).sum()
        torch.testing.assert_close(found[n], plain, atol=1e-4, rtol=1e-5)


def test_a_policy_that_is_its_reference_starts_at_log_2_and_at_a_half() -> None:
    with_check = replace(SMALL, check_share=0.25, smoothing=0.0)
    assert trained("dpo", with_check).steps[0].check_loss == pytest.approx(0.693147, abs=1e-5)
    assert trained("kto", with_check).steps[0].check_loss == pytest.approx(0.5, abs=1e-5)


def test_z0_is_the_mean_log_ratio_with_answers_to_other_prompts() -> None:
    made, data = policy(trained=True), thumbs()
    trainer = direct._Trainer(made, "kto", data, SMALL, 0.9, torch.Generator().manual_seed(0))
    units = trainer.train[:6]
    ratios: list[float] = []
    for unit in units:
        prompt, answer = trainer.prompts[unit.elsewhere], trainer.answers[unit.elsewhere]
        assert prompt == data.prompts[unit.answers[0]]
        tokens = torch.tensor([[*prompt, *answer]])
        both = [m.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1] for m in (made.lm, language_model())]
        own, base = (torch.log_softmax(x / 0.9, -1).gather(1, torch.tensor(answer)[:, None]).sum() for x in both)
        ratios.append(float((own - base).detach()))
    found = float(trainer._z0(units))
    assert found == pytest.approx(max(0.0, sum(ratios) / 6), abs=1e-3)
    assert sum(ratios) > 0.1


def test_a_step_of_kto_holds_log_ratios_against_z0() -> None:
    made = policy(trained=True)
    trainer = direct._Trainer(made, "kto", thumbs(), SMALL, 0.9, torch.Generator().manual_seed(0))
    batch = trainer.train[:6]
    with torch.no_grad():
        own = log_probs_of(made.lm, group_answers(trainer.prompts, trainer.answers), len(trainer.answers), 0.9)
    ratio = own - trainer.reference_N
    z0 = max(0.0, sum(float(ratio[unit.elsewhere]) for unit in batch) / 6)
    gains = [(1 if unit.liked else -1) * (float(ratio[unit.answers[0]]) - z0) for unit in batch]
    expected = sum(1 - 1 / (1 + math.exp(-0.1 * gain)) for gain in gains) / 6
    trainer.step(batch, 1.0)
    assert trainer.tally.loss / trainer.tally.weight == pytest.approx(expected, abs=1e-4)
    assert z0 > 0.1


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_step_is_divided_by_the_weight_of_its_labels(method: Method) -> None:
    plain = comparisons() if method == "dpo" else thumbs()
    tenfold = replace(
        plain,
        pair_weights=tuple(10 * w for w in plain.pair_weights),
        rating_weights=tuple(10 * w for w in plain.rating_weights),
    )
    first, second = (
        improve_directly(policy(), method, data, first_feature, PROMPTS, SMALL, sampling=SAMPLING, kl_budget=9, seed=0)
        for data in (plain, tenfold)
    )
    assert first.steps[1].grad_norm == pytest.approx(second.steps[1].grad_norm, rel=1e-3)
    assert first.steps[1].loss == pytest.approx(second.steps[1].loss, rel=1e-3)


def test_each_mismatched_answer_is_to_another_prompt() -> None:
    trainer = direct._Trainer(policy(), "kto", thumbs(), SMALL, 0.9, torch.Generator().manual_seed(0))
    data = thumbs()
    assert all(unit.elsewhere >= len(data.answers) for unit in trainer.train)
    one_prompt = DirectData(
        ((4,), (4,)), ((9, EOS), (10, EOS)), rated=(0, 1), liked=(True, False), rating_weights=(1, 1)
    )
    alone = direct._Trainer(policy(), "kto", one_prompt, SMALL, 0.9, torch.Generator().manual_seed(0))
    assert [unit.elsewhere for unit in alone.train] == [-1, -1]
    assert float(alone._z0(alone.train)) == 0.0


def test_labels_are_set_aside_by_prompt() -> None:
    data = comparisons()
    doubled = replace(data, pairs=data.pairs * 2, pair_weights=data.pair_weights * 2)
    aside, rest = set_aside(pair_units(doubled), 0.25, torch.Generator().manual_seed(1))
    assert not {u.prompt for u in aside} & {u.prompt for u in rest}
    assert len(aside) + len(rest) == 48 and len({u.prompt for u in aside}) == round(len(set(PROMPTS)) * 0.25)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_micro_batches_do_not_change_the_update(method: Method) -> None:
    wide, narrow = policy(), policy()
    few_steps = replace(SMALL, batch_labels=24)
    trained(method, few_steps, made=wide)
    trained(method, replace(few_steps, micro_batch_tokens=20), made=narrow)
    for a, b in zip(wide.adapter_parameters(), narrow.adapter_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_training_is_the_same_again_with_the_same_seed(method: Method) -> None:
    first, second = policy(), policy()
    assert trained(method, made=first) == trained(method, made=second)
    for a, b in zip(first.adapter_parameters(), second.adapter_parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_label_that_weighs_nothing_beside_another_decides_nothing() -> None:
    made, data = policy(), comparisons()
    against = tuple((b, a) for a, b in data.pairs)
    both = replace(data, pairs=(*data.pairs, *against), pair_weights=(1.0,) * 24 + (1e-6,) * 24)
    improve_directly(
        made, "dpo", both, first_feature, PROMPTS, replace(SMALL, batch_labels=48, epochs=8),
        sampling=SAMPLING, kl_budget=1e9, seed=0,
    )  # fmt: skip
    assert preferred(made) > 0


def preferred(made: Policy) -> float:
    """Mean log-ratio of liked minus disliked answers."""
    data = comparisons()
    groups = group_answers(data.prompts, data.answers)
    with torch.no_grad():
        own = log_probs_of(made.lm, groups, 48, 0.9)
        with made.reference():
            base = log_probs_of(made.lm, groups, 48, 0.9)
    ratio = (own - base).view(-1, 2)
    return float((ratio[:, 0] - ratio[:, 1]).mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_policy_learns_the_style_that_people_liked(method: Method, seed: int) -> None:
    made = policy(seed)
    data = liked_style(made) if method == "dpo" else as_thumbs(liked_style(made))
    before = style(made)
    config = replace(SMALL, epochs=4, batch_labels=16, learning_rate=8e-3, check_share=0.2, checks=3)
    report = improve_directly(
        made, method, data, first_feature, PROMPTS, config, sampling=SAMPLING, kl_budget=8.0, seed=seed
    )
    assert report.kl <= 8.0 and report.optimizer_steps >= 10
    assert style(made) > before + 0.08  # six times the standard error of some 1,200 tokens


def liked_style(made: Policy) -> DirectData:
    """Answers of the base in pairs; the one with the larger share of low tokens is preferred."""
    rollouts = sample(made, PROMPTS, 8, SAMPLING, torch.Generator().manual_seed(5))
    answers = rollouts.answers()
    scores = [sum(token < 12 for token in answer) / len(answer) for answer in answers]
    pairs = [(i, i + 1) if scores[i] > scores[i + 1] else (i + 1, i) for i in range(0, len(answers), 2)]
    kept = tuple(pair for pair in pairs if scores[pair[0]] != scores[pair[1]])
    return DirectData(rollouts.prompts, tuple(answers), kept, (1.0,) * len(kept))


def as_thumbs(data: DirectData) -> DirectData:
    rated = tuple(i for pair in data.pairs for i in pair)
    return DirectData(data.prompts, data.answers, (), (), rated, (True, False) * len(data.pairs), (1.0,) * len(rated))


def style(made: Policy) -> float:
    """The share of low tokens in what the policy says."""
    rollouts = sample(made, PROMPTS, 8, SAMPLING, torch.Generator().manual_seed(6))
    return float((rollouts.tokens_NT < 12)[rollouts.mask_NT].float().mean())


def test_a_state_beyond_the_kl_budget_is_thrown_away() -> None:
    made = policy()
    report = trained("dpo", replace(SMALL, epochs=20, checks=30), made=made, kl_budget=0.5)
    assert report.stopped == "kl_budget" and report.kl <= 0.5 < report.steps[-1].kl
    again = trained("dpo", replace(SMALL, epochs=1, learning_rate=1e-12), made=made)
    assert again.steps[0].kl == pytest.approx(report.kl, abs=1e-4)


def test_the_state_with_the_least_loss_on_the_labels_set_aside_is_kept() -> None:
    # Half of the labels say the opposite: what is learned of one half is wrong of the other.
    data = comparisons()
    mixed = replace(data, pairs=tuple(p if n % 2 else p[::-1] for n, p in enumerate(data.pairs)))
    config = replace(SMALL, epochs=30, checks=10, check_share=0.3, smoothing=0.0, beta=1.0)
    options = {"sampling": SAMPLING, "kl_budget": 1e9, "seed": 0}
    report = improve_directly(policy(), "dpo", mixed, first_feature, PROMPTS, config, **options)  # type: ignore[arg-type]
    best = min(report.steps, key=lambda step: step.check_loss)
    assert report.stopped == "no_better" and report.kl == best.kl
    assert report.steps[-1].check_loss > best.check_loss


def test_a_reason_to_stop_ends_the_training_and_what_was_learned_is_looked_at() -> None:
    seen: list[DirectStep] = []
    asked = iter(range(100))
    report = trained(
        "dpo", replace(SMALL, epochs=5), on_step=seen.append, should_stop=lambda: "budget" if next(asked) > 3 else None
    )
    assert report.stopped == "budget" and report.optimizer_steps == 4
    assert [step.optimizer_steps for step in seen] == [0, 4] and tuple(seen) == report.steps


def test_nothing_to_learn_from_is_refused_with_what_to_do() -> None:
    options = {"sampling": SAMPLING, "kl_budget": 1.0, "seed": 0}
    with pytest.raises(NotEnoughData, match="DPO learns from pairs, and there are none"):
        improve_directly(policy(), "dpo", thumbs(), first_feature, PROMPTS, SMALL, **options)  # type: ignore[arg-type]
    ups = replace(thumbs(), liked=(True,) * 48)
    with pytest.raises(NotEnoughData, match="answers that they did not"):
        improve_directly(policy(), "kto", ups, first_feature, PROMPTS, SMALL, **options)  # type: ignore[arg-type]
