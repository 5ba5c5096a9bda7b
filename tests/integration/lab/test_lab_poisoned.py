"""The update cycle among people who can't be learned from: what `docs/experiments.md` has at full size, small."""

from pathlib import Path

import pytest

from infra.lab import runner
from infra.lab.options import LabOptions
from infra.lab.world import Setup
from infra.simulate import tastes
from schemas.cycles import CycleStatus

pytestmark = pytest.mark.timeout(1200)  # half a minute of CPU, which a busy machine takes its time to give
QUICK = {
    "THUMBWHEEL_PPO__ITERATIONS": "2",
    "THUMBWHEEL_MAX_HELD_OUT_PROMPTS": "24",
    "THUMBWHEEL_ANSWERS_PER_HELD_OUT": "1",
    "THUMBWHEEL_SCORE_RESPONSES": "32",
    "THUMBWHEEL_REWARD__L2_GRID": "[0.1]",
}
POISONED = LabOptions(seeds=1, cycles=2, users=24, answers=200, flips=0.4, poisoners=0.3)
"""Four in ten votes of honest people are turned round, and a third of the users vote for rudeness."""


def test_no_cycle_on_poisoned_and_contradictory_labels_promotes_what_is_worse(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default gates. That they had labels enough to train and to be judged keeps this from being idle:
    not a lack of data refuses them."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    named = {name: tastes.load(name) for name in POISONED.taste_names()}
    found = runner.run(Setup(POISONED, tmp_path, str(tiny_model), named))
    assert [r.status in (CycleStatus.FINISHED, CycleStatus.REFUSED) for r in found] == [True, True]
    assert all(r.labels_used["train"] >= 60 and r.judge_vs_parent is not None for r in found)
    assert not [r for r in found if r.regression == "yes"]
    assert all(r.reason for r in found if not r.promoted)
