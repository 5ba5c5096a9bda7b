import math

import pytest

from trainer.core.gates import (
    Calibration,
    Candidate,
    Distance,
    GateThresholds,
    Paired,
    Share,
    judge_candidate,
    passed,
    refusal,
)
from trainer.core.gates.thresholds import PROBES
from trainer.core.gates.verdicts import (
    WHAT,
    beyond_length,
    calibration,
    finite,
    kl,
    length,
    order,
    win_certainty,
    win_rate,
)

THRESHOLDS = GateThresholds()
SAME = Paired("flattery", (0.0,) * 64, (0.0,) * 64)


def distance(mean: float, budget: float = 8.0) -> Distance:
    return Distance(mean, mean - 0.5, mean + 0.5, 64, budget)


def candidate(**changes: object) -> Candidate:
    good: dict[str, object] = {
        "reward_model": Share(0.7, 0.6, 0.8, 90),
        "calibration": Calibration(0.08, 0.02, -0.03, 0.05, 90),
        "beyond_length": Share(0.1, -0.02, 0.22, 90),
        "judge": Share(0.7, 0.6, 0.8, 90),
        "win_rate_vs_parent": Share(0.6, 0.5, 0.7, 64),
        "win_certainty": 0.9,
        "comparisons": (64.0, 30.0, 9.0),
        "kl": distance(3.0),
        "kl_parent": distance(2.0),
        "length": 20.0,
        "parent_length": 22.0,
        "work": 1.06,
        "probes": (SAME,),
        "figures": {"kl": 3.0},
    }
    return Candidate(**(good | changes))  # type: ignore[arg-type]


def test_a_good_candidate_passes_every_gate_and_nothing_is_to_be_changed() -> None:
    gates = judge_candidate(candidate(), THRESHOLDS)
    assert [g.name for g in gates] == [
        "finite", "changed",
        "reward_model", "calibration", "beyond_length", "judge", "comparisons", "win_rate", "win_certainty",
        "kl", "kl_parent", "length", "latency", "flattery",
    ]  # fmt: skip
    assert passed(gates) and refusal(gates) == "" and not any(g.remedy for g in gates)


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"reward_model": Share(0.55, 0.48, 0.62, 300)}, "reward_model"),
        ({"reward_model": Share(0.49, 0.35, 0.63, 49)}, "reward_model"),
        ({"calibration": Calibration(0.3, 0.22, 0.1, 0.3, 90)}, "calibration"),
        ({"beyond_length": Share(-0.2, -0.3, -0.1, 90)}, "beyond_length"),
        ({"judge": None}, "judge"),
        ({"comparisons": (64.0, 15.9, 40.0)}, "comparisons"),
        ({"comparisons": (15.0, 64.0, 40.0)}, "comparisons"),
        ({"win_rate_vs_parent": Share(0.49, 0.45, 0.55, 64)}, "win_rate"),
        ({"win_certainty": 0.84}, "win_certainty"),
        ({"win_certainty": None}, "win_certainty"),
        ({"kl": distance(10.1)}, "kl"),
        ({"kl_parent": distance(10.1)}, "kl_parent"),
        ({"length": 45.0}, "length"),
        ({"work": 1.3}, "latency"),
        ({"probes": (Paired("flattery", (1.0,) * 64, (0.0,) * 64),)}, "flattery"),
        ({"probes": (Paired("unsafe", (), ()),)}, "unsafe"),
        ({"figures": {"reward": math.nan}}, "finite"),
    ],
)
def test_each_fault_fails_its_own_gate_and_no_other_and_says_what_would_change_it(
    change: dict[str, object], gate: str
) -> None:
    gates = judge_candidate(candidate(**change), THRESHOLDS)
    (failed,) = [g for g in gates if not g.passed]
    assert failed.name == gate and failed.remedy
    assert refusal(gates) == f"{gate}: {failed.detail} (to change it: {failed.remedy})"


def test_with_few_cases_the_point_alone_must_not_be_below_chance() -> None:
    assert order("reward_model", Share(0.5, 0.3, 0.7, 39), THRESHOLDS).passed
    assert not order("reward_model", Share(0.49, 0.3, 0.7, 39), THRESHOLDS).passed
    assert not order("reward_model", Share(0.6, 0.5, 0.7, 300), THRESHOLDS).passed


def test_a_refusal_by_width_says_how_many_labels_would_do() -> None:
    gate = order("reward_model", Share(0.55, 0.48, 0.62, 300), THRESHOLDS)
    # The half-width of 0.07 must come to 0.05: 300 * 1.4^2 = 588 labels, 288 more, and a twentieth for safety.
    assert gate.remedy is not None and gate.remedy.startswith("about 303 more labels on held-out prompts")
    worse = order("reward_model", Share(0.45, 0.38, 0.52, 300), THRESHOLDS)
    assert worse.remedy is not None and "contradict" in worse.remedy  # more of the same would not help


def test_calibration_may_be_off_by_what_chance_explains() -> None:
    assert calibration(Calibration(0.3, 0.2, -0.01, 0.3, 12), THRESHOLDS).passed
    assert calibration(Calibration(0.2, 0.14, 0.1, 0.2, 400), THRESHOLDS).passed
    assert not calibration(Calibration(0.22, 0.16, 0.1, 0.2, 400), THRESHOLDS).passed


def test_length_must_be_beaten_by_the_interval_once_there_are_enough_labels() -> None:
    assert beyond_length(Share(-0.05, -0.12, 0.02, 399), THRESHOLDS).passed
    assert not beyond_length(Share(0.05, -0.02, 0.12, 400), THRESHOLDS).passed
    assert beyond_length(Share(0.08, 0.01, 0.15, 400), THRESHOLDS).passed


def test_a_judge_whose_heads_disagree_holds_a_version_back_and_says_what_would_help() -> None:
    doubted, doubtful = win_certainty(0.76, 52, THRESHOLDS), win_certainty(0.3, 52, THRESHOLDS)
    assert (doubted.passed, doubted.value, doubted.threshold, doubted.cases) == (False, 0.76, 0.85, 52)
    assert "a chance of 0.76, over the judge's heads and 52 prompts; asked for 0.85" in doubted.detail
    assert "more labels from the judge's raters" in (doubted.remedy or "")
    assert "rather worse" in (doubtful.remedy or "") and win_certainty(0.85, 52, THRESHOLDS).remedy is None


def test_a_win_rate_of_one_half_passes_while_its_lower_end_is_near() -> None:
    assert win_rate(Share(0.5, 0.4, 0.6, 64), THRESHOLDS).passed
    narrow = win_rate(Share(0.6, 0.36, 0.84, 12), THRESHOLDS)
    # 0.24 must come to 0.2: 12 * 1.44 = 17.3 prompts, 5.3 more, 5.5 with a twentieth.
    assert not narrow.passed and narrow.remedy == "about 6 more held-out prompts if it stays 0.60"


def test_kl_may_be_a_quarter_above_the_training_budget_on_other_prompts() -> None:
    assert kl("kl", distance(10.0), THRESHOLDS).passed and not kl("kl", distance(10.01), THRESHOLDS).passed
    half = GateThresholds(kl_parent_share=0.5)
    assert kl("kl_parent", distance(5.0), half).passed and not kl("kl_parent", distance(5.01), half).passed


@pytest.mark.parametrize(("mean", "good"), [(9.9, False), (10.0, True), (40.0, True), (40.1, False)])
def test_length_may_halve_or_double(mean: float, good: bool) -> None:
    assert length(mean, 20.0, THRESHOLDS).passed is good


def test_a_nan_fails_and_still_fits_into_an_event() -> None:
    gate = kl("kl", Distance(math.nan, math.nan, math.nan, 9, 8.0), THRESHOLDS)
    assert not gate.passed and (gate.value, gate.low) == (-1.0, -1.0)
    assert finite({"a": math.inf, "b": math.nan, "c": 1.0}).detail == "not finite: a, b"


def test_no_gate_at_all_passes_nothing() -> None:
    assert not passed(())


def test_every_probe_has_a_margin_and_a_sentence() -> None:
    assert set(PROBES) == set(WHAT)
    assert all(THRESHOLDS.rise(name) > 0 for name in PROBES)
