import math

import pytest

from trainer.core.gates import (
    Candidate,
    GateThresholds,
    Share,
    accuracy,
    finite,
    judge_candidate,
    kl,
    length,
    passed,
    refusal,
    win_rate,
)

THRESHOLDS = GateThresholds()


def candidate(**changes: object) -> Candidate:
    good: dict[str, object] = {
        "reward_model": Share(0.7, 0.6, 0.8, 90),
        "judge": Share(0.7, 0.6, 0.8, 90),
        "win_rate_vs_parent": Share(0.6, 0.5, 0.7, 64),
        "kl": 3.0,
        "kl_budget": 8.0,
        "length": 20.0,
        "parent_length": 22.0,
        "figures": {"kl": 3.0},
    }
    return Candidate(**(good | changes))  # type: ignore[arg-type]


def test_a_good_candidate_passes_every_gate() -> None:
    gates = judge_candidate(candidate(), THRESHOLDS)
    assert [g.name for g in gates] == ["finite", "reward_model", "judge", "win_rate", "kl", "length"]
    assert passed(gates) and refusal(gates) == ""


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"reward_model": Share(0.55, 0.48, 0.62, 200)}, "reward_model"),
        ({"reward_model": Share(0.49, 0.35, 0.63, 49)}, "reward_model"),
        ({"judge": None}, "judge"),
        ({"win_rate_vs_parent": Share(0.49, 0.45, 0.55, 64)}, "win_rate"),
        ({"kl": 10.1}, "kl"),
        ({"length": 45.0}, "length"),
        ({"figures": {"reward": math.nan}}, "finite"),
    ],
)
def test_each_fault_fails_its_own_gate_and_no_other(change: dict[str, object], gate: str) -> None:
    gates = judge_candidate(candidate(**change), THRESHOLDS)
    assert [g.name for g in gates if not g.passed] == [gate]
    assert refusal(gates).startswith(f"{gate}: ")


def test_with_few_cases_the_point_alone_must_not_be_below_chance() -> None:
    assert accuracy("reward_model", Share(0.5, 0.3, 0.7, 39), THRESHOLDS).passed
    assert not accuracy("reward_model", Share(0.49, 0.3, 0.7, 39), THRESHOLDS).passed
    assert not accuracy("reward_model", Share(0.6, 0.5, 0.7, 200), THRESHOLDS).passed


def test_a_win_rate_of_one_half_passes_while_its_lower_end_is_near() -> None:
    assert win_rate(Share(0.5, 0.4, 0.6, 64), THRESHOLDS).passed
    assert not win_rate(Share(0.6, 0.39, 0.8, 12), THRESHOLDS).passed


def test_kl_may_be_a_quarter_above_the_training_budget_on_other_prompts() -> None:
    assert kl(10.0, 8.0, THRESHOLDS).passed and not kl(10.01, 8.0, THRESHOLDS).passed


@pytest.mark.parametrize(("mean", "good"), [(9.9, False), (10.0, True), (40.0, True), (40.1, False)])
def test_length_may_halve_or_double(mean: float, good: bool) -> None:
    assert length(mean, 20.0, THRESHOLDS).passed is good


def test_a_nan_fails_and_still_fits_into_an_event() -> None:
    gate = kl(math.nan, 8.0, THRESHOLDS)
    assert not gate.passed and gate.value == -1.0
    assert finite({"a": math.inf, "b": math.nan, "c": 1.0}).detail == "not finite: a, b"


def test_no_gate_at_all_passes_nothing() -> None:
    assert not passed(())
