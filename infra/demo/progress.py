"""What the log tells of update cycles and versions, folded event by event. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from infra.demo.state import CycleView, VersionView
from schemas.cycles import Cycle, CycleStatus, Stage
from schemas.versions import Board, ModelVersion

ENDED_IN_ORDER = frozenset({CycleStatus.FINISHED, CycleStatus.REFUSED, CycleStatus.AWAITING_APPROVAL})


@dataclass(frozen=True)
class CycleRecord:
    """One cycle: its latest event, what each stage reported and the wall seconds at which it was done."""

    last: Cycle
    began: datetime
    at: datetime
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    stage_seconds: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def ended(self) -> bool:
        return self.last.status in ENDED_IN_ORDER or self.last.status is CycleStatus.FAILED


@dataclass(frozen=True)
class Progress:
    """All cycles in order of their first event, and the board of versions."""

    cycles: dict[str, CycleRecord] = field(default_factory=dict[str, CycleRecord])
    board: Board = field(default_factory=Board)
    promotions: tuple[tuple[datetime, str], ...] = ()
    """(when, version) of each version that went live, in order."""

    def heard(self, event: Cycle, time: datetime) -> "Progress":
        """After one more event of a cycle. What the log repeats changes nothing."""
        known = self.cycles.get(event.cycle_id) or CycleRecord(event, began=time, at=time)
        stages = dict(known.stage_seconds)
        if event.status is CycleStatus.STAGE_DONE and event.stage and event.stage.value not in stages:
            stages[event.stage.value] = max(0.0, event.cost.seconds - sum(stages.values()))
        record = replace(known, last=event, at=time, metrics=known.metrics | event.metrics, stage_seconds=stages)
        return replace(self, cycles=self.cycles | {event.cycle_id: record})

    def moved(self, event: ModelVersion, time: datetime) -> "Progress":
        """After one more event of a version."""
        board = self.board.apply(event, time)
        live = board.live()
        before = self.promotions[-1][1] if self.promotions else None
        went_live = live is not None and live.version != before
        promotions = (*self.promotions, (time, live.version)) if live is not None and went_live else self.promotions
        return replace(self, board=board, promotions=promotions)

    @property
    def ended(self) -> tuple[CycleRecord, ...]:
        """Cycles that ran to their end, whether or not their version passed."""
        return tuple(c for c in self.cycles.values() if c.last.status in ENDED_IN_ORDER)

    @property
    def failed(self) -> tuple[CycleRecord, ...]:
        return tuple(c for c in self.cycles.values() if c.last.status is CycleStatus.FAILED)

    @property
    def running(self) -> bool:
        return any(not c.ended for c in self.cycles.values())

    @property
    def serving(self) -> str | None:
        live = self.board.live()
        return live.version if live else None

    def settled(self) -> bool:
        """Whether every version whose cycle finished went live: there is nothing more to wait for."""
        finished = [c.last.version for c in self.cycles.values() if c.last.status is CycleStatus.FINISHED]
        went_live = {version for _, version in self.promotions}
        return all(version is None or version in went_live for version in finished)


def cycle_view(progress: Progress) -> CycleView | None:
    """The latest cycle, as the view shows it."""
    if not progress.cycles:
        return None
    record = list(progress.cycles.values())[-1]
    last = record.last
    stage, fraction = last.stage, last.fraction
    if last.status is CycleStatus.STAGE_DONE and stage is not None:
        stage, fraction = _after(stage), 0.0
    return CycleView(
        number=len(progress.cycles),
        cycle_id=last.cycle_id,
        status=last.status,
        stage=stage,
        fraction=fraction,
        seconds=last.cost.seconds,
        version=last.version,
        metrics=record.metrics,
        reason=last.reason,
    )


def version_views(board: Board) -> tuple[VersionView, ...]:
    """The versions in the order in which they were made: the base, then v1, v2, ..."""
    events = [standing.event for standing in board.standings.values()]
    events.sort(key=lambda e: order_of(e.version))
    return tuple(VersionView(e.version, e.state.value, e.kl, e.win_rate) for e in events)


def order_of(version: str) -> tuple[int, str]:
    """A sort key: the base first, then by number."""
    digits = version.removeprefix("v")
    return (int(digits), version) if digits.isdigit() else (-1 if version == "base" else 1 << 30, version)


def _after(stage: Stage) -> Stage:
    order: Sequence[Stage] = tuple(Stage)
    return order[min(order.index(stage) + 1, len(order) - 1)]
