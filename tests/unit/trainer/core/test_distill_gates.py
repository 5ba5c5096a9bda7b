"""The gates of a cycle asked of a student."""

from dataclasses import replace

import pytest

from schemas.versions import GateResult
from trainer.core.distill_gates import StudentCandidate, judge_student
from trainer.core.gates import Distance, GateThresholds, Paired, Share

CARRIED = tuple(
    GateResult(name=name, passed=True, value=0.7, threshold=0.5, detail="0.70 on 300 labels")
    for name in ("finite", "reward_model", "calibration", "beyond_length", "judge", "win_rate")
)
CANDIDATE = StudentCandidate(
    changed=True,
    win_rate=Share(0.55, 0.45, 0.65, 64),
    comparisons=(64.0, 80.0, 20.0),
    kl=Distance(3.0, 2.0, 4.0, 64, budget=8.0),
    kl_parent=Distance(2.0, 1.0, 3.0, 64, budget=6.0),
    length=20.0,
    teacher_length=25.0,
    work=0.5,
    probes=(Paired("flattery", (0.0,) * 40, (0.0,) * 40),),
    figures={"win_rate": 0.55},
    fitted_by="v3",
    carried=CARRIED,
)


def failed(candidate: StudentCandidate) -> dict[str, GateResult]:
    return {gate.name: gate for gate in judge_student(candidate, GateThresholds())[0] if not gate.passed}


def test_a_student_as_good_as_its_teacher_passes_and_the_fitting_cycles_verdicts_are_told_as_such() -> None:
    gates, not_asked = judge_student(CANDIDATE, GateThresholds())
    assert all(gate.passed for gate in gates)
    assert [g.name for g in gates] == [
        "finite", "changed", "reward_model", "calibration", "beyond_length", "judge", "comparisons", "win_rate", "kl",
        "kl_parent", "length", "latency", "flattery",
    ]  # fmt: skip
    assert {g.name: g.detail for g in gates}["judge"] == "in the cycle of v3: 0.70 on 300 labels"
    assert "against the teacher" in {g.name: g.detail for g in gates}["win_rate"]
    assert {n.name: n.reason for n in not_asked}["safety_cost"] == "there is no safety head"


@pytest.mark.parametrize(
    ("changes", "gate", "advice"),
    [
        ({"changed": False}, "changed", "LEARNING_RATE"),
        ({"win_rate": Share(0.4, 0.3, 0.5, 64)}, "win_rate", "more layers"),
        ({"kl_parent": Distance(8.0, 7.0, 9.0, 64, budget=6.0)}, "kl_parent", "more layers"),
        ({"kl": Distance(11.0, 9.0, 13.0, 64, budget=8.0)}, "kl", "more layers"),
        ({"length": 60.0}, "length", "more layers"),
        ({"work": 1.3}, "latency", "fewer layers"),
        ({"comparisons": (64.0, 9.0, 4.0)}, "comparisons", "7 more prompts"),
        ({"figures": {"win_rate": float("nan")}}, "finite", "LEARNING_RATE"),
        ({"probes": (Paired("flattery", (1.0,) * 40, (0.0,) * 40),)}, "flattery", "THUMBWHEEL_GATES__FLATTERY_RISE"),
    ],
)
def test_each_gate_refuses_by_itself_and_says_what_would_change_it(
    changes: dict[str, object], gate: str, advice: str
) -> None:
    found = failed(replace(CANDIDATE, **changes))  # type: ignore[arg-type]
    assert list(found) == [gate] and advice in (found[gate].remedy or "")


def test_a_judge_that_failed_its_own_gate_refuses_the_student() -> None:
    bad = CARRIED[4].model_copy(update={"passed": False, "remedy": "more labels"})
    found = failed(replace(CANDIDATE, carried=(*CARRIED[:4], bad)))
    assert list(found) == ["judge"] and found["judge"].remedy == "more labels"


def test_what_can_not_be_asked_is_told_and_not_passed() -> None:
    apart = replace(CANDIDATE, kl=None, kl_parent=None, carried=CARRIED[:2], probes=(Paired("unsafe", (), ()),))
    gates, not_asked = judge_student(apart, GateThresholds())
    reasons = {n.name: n.reason for n in not_asked}
    assert {"kl", "kl_parent", "calibration", "beyond_length", "judge", "unsafe"} <= reasons.keys()
    assert reasons.keys().isdisjoint(gate.name for gate in gates)
    assert "no tokenizer" in reasons["kl"] and "the record of v3" in reasons["judge"]
