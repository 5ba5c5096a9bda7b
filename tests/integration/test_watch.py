"""The service: what begins a cycle, what holds it back, and that a failure is not repeated in a tight loop.

The tables hold too few labels for a cycle to learn from, or the base can't be loaded: a cycle is over at once.
"""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas import tables
from schemas.cycles import Cycle, CycleStatus, Trigger
from schemas.envelope import new_event
from schemas.health import Alert
from tests.integration import trainer_lake as lake
from trainer import app
from trainer.adapters.events import MemoryEvents
from trainer.adapters.policies import LanguageModel
from trainer.cycle import CycleRunner
from trainer.journal import Outcome
from trainer.watch import Watch

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return (self.now - START).total_seconds()


class World:
    """A service on 12 labels, whose clock is moved by hand."""

    def __init__(self, data: Path, base: Path, *, broken: bool = False, **changes: Any) -> None:
        self.clock, self.events = Clock(), MemoryEvents()
        given = lake.settings(data, base, score_responses=0, **({"min_new_preferences": 10} | changes))
        load = _no_base if broken else app.loader(given)
        self.runner = CycleRunner(given, self.events, load_base=load, now=self.clock)
        self.watch = Watch(self.runner, threading.Event(), load_base=load, clock=self.clock.seconds, now=self.clock)

    def round(self, **later: float) -> list[Outcome]:
        """One look some time later; how the cycles ended so far, the oldest first."""
        self.clock.now += timedelta(**later)
        self.watch.round()
        return sorted(self.runner.cycles.outcomes(), key=lambda o: o.ended_at)

    def started(self) -> list[Cycle]:
        told = [e.data for e in self.events.events if isinstance(e.data, Cycle)]
        return [c for c in told if c.status is CycleStatus.STARTED]

    def alert(self, name: str, state: Any = "raised") -> None:
        data = Alert(fingerprint=f"{name}-v1", state=state, name=name, severity="ticket", summary="topics move")
        self.events.publish(new_event(data, source="test", time=self.clock.now))


def _no_base() -> LanguageModel:
    raise RuntimeError("the device is lost")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lake.tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return lake.fill(tmp_path / "data", 8)


def test_labels_that_a_cycle_has_looked_at_begin_no_other(data: Path, base: Path) -> None:
    world = World(data, base)
    (outcome,) = world.round()
    assert (outcome.trigger, outcome.labels) == (Trigger.PREFERENCES, 12)
    assert "there are 12 labels" in outcome.reason and outcome.conclusive
    assert world.started()[0].reason == "from base: 12 new effective labels, 10 asked for"
    assert len(world.round(days=30)) == 1
    lake.write(data, tables.RATINGS, [lake.rating(n) for n in range(100, 109)])
    assert len(world.round(minutes=1)) == 1 and world.watch.waiting().rows == 9
    lake.write(data, tables.RATINGS, [lake.rating(109)])
    assert len(world.round(minutes=1)) == 2


def test_many_clicks_of_one_user_begin_no_cycle(data: Path, base: Path) -> None:
    """5 people with 4 thumbs and one with 100: capped at s = 2/6, c = 10 over 100 thumbs.

    Kish: (20 + 10)^2 / (20 + 100 * 0.1^2) = 900 / 21 = 42.9.
    """
    world = World(data, base, min_new_preferences=60)
    lake.write(data, tables.RATINGS, [lake.rating(n, rater_id=f"u{n % 5}") for n in range(100, 120)])
    lake.write(data, tables.RATINGS, [lake.rating(n, rater_id="clicker") for n in range(200, 300)])
    folder = world.runner.cycles.folder("c1")
    seen = world.runner.lake.labels(world.runner.lake.pins()).filter(~_new_id())
    _looked_at(world, folder, seen)
    new = world.watch.waiting()
    assert (new.rows, round(new.effective, 1)) == (120, 42.9)
    assert len(world.round()) == 1


def _new_id() -> Any:
    import polars as pl

    return pl.col("id").is_in([f"rating-{n}" for n in (*range(100, 120), *range(200, 300))])


def _looked_at(world: World, folder: Any, seen: Any) -> None:
    """As if a cycle had looked at these labels."""
    from trainer.adapters.new_labels import keep_ids
    from trainer.journal import CycleStart

    start = CycleStart(cycle_id="c1", started_at=START, pid=1, parent="base", labels=seen.height, tables={})
    folder.begin(start, "{}")
    keep_ids(folder, seen)
    folder.end(Outcome(cycle_id="c1", status=CycleStatus.REFUSED, labels=seen.height, ended_at=START))


def test_ids_that_were_not_kept_are_counted_by_number_alone(data: Path, base: Path) -> None:
    world = World(data, base)
    world.round()
    (cycle_id,) = world.runner.cycles.ids()
    world.runner.cycles.folder(cycle_id).labels.unlink()
    lake.write(data, tables.RATINGS, [lake.rating(n) for n in range(100, 105)])
    assert (world.watch.waiting().rows, world.watch.waiting().effective) == (5, 5.0)


def test_an_open_drift_alert_begins_one_cycle_and_a_resolved_or_another_one_none(data: Path, base: Path) -> None:
    world = World(data, base, min_new_preferences=1000)
    world.alert("latency-p99")
    world.alert("Drift-topics")
    world.alert("Drift-topics", "resolved")
    assert world.round() == []
    world.clock.now += timedelta(minutes=2)
    world.alert("drift-segments")
    (outcome,) = world.round()
    assert outcome.trigger is Trigger.DRIFT and world.started()[0].reason == "from base: alert drift-segments"
    lake.write(data, tables.RATINGS, [lake.rating(100)])
    assert len(world.round(minutes=2)) == 1  # the same alert is answered


def test_a_failure_from_outside_is_tried_again_later_and_later_and_then_no_more(data: Path, base: Path) -> None:
    world = World(data, base, broken=True)
    (first,) = world.round()
    assert (first.reason, first.conclusive) == ("the device is lost", False)
    assert len(world.round(seconds=59)) == 1
    assert len(world.round(seconds=1)) == 2
    assert len(world.round(seconds=119)) == 2
    assert len(world.round(seconds=1)) == 3
    assert len(world.round(minutes=4)) == 4
    ended = world.round(minutes=8)
    assert [o.conclusive for o in ended] == [False, False, False, False, True]
    assert len(world.round(days=30)) == 5


def test_a_used_up_month_holds_a_due_cycle_back_until_the_next_one(
    data: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(data, base, max_month_seconds=0.000001)
    world.round()
    lake.write(data, tables.RATINGS, [lake.rating(n) for n in range(100, 120)])
    caplog.clear()
    assert len(world.round(minutes=1)) == len(world.round(minutes=1)) == 1
    said = [r for r in caplog.records if r.message == "a cycle is due and is not begun"]
    assert len(said) == 1 and "THUMBWHEEL_MAX_MONTH_SECONDS" in world.runner.cycles.held()
    registry = world.runner.metrics.registry
    assert (registry.get_sample_value("thumbwheel_month_budget_used", {"limit": "seconds"}) or 0) > 1
    assert len(world.round(days=10)) == 2 and world.runner.cycles.held() == ""  # December


def test_a_version_that_waits_for_a_person_holds_the_next_cycle_back_until_it_expires(data: Path, base: Path) -> None:
    lake.fill(data)
    world = World(data, base, approval="required", approval_days=3)
    (first,) = world.round()
    assert first.status is CycleStatus.AWAITING_APPROVAL
    lake.write(data, tables.RATINGS, [lake.rating(n) for n in range(500, 540)])
    assert len(world.round(days=2.9)) == 1 and world.runner.cycles.held() == "v1 waits for an approval"
    ended = world.round(days=0.2)
    assert [o.status for o in ended] == [CycleStatus.REFUSED, CycleStatus.AWAITING_APPROVAL]
    assert ended[0].reason == "declined: nobody approved it in 3 days"
