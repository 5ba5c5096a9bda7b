"""What the terminal view shows: one frozen value, made anew for each frame."""

from dataclasses import dataclass, field

from schemas.cycles import CycleStatus, Stage


@dataclass(frozen=True)
class Rate:
    """Thumbs of one version, as the users meant to give them (spam left out)."""

    version: str
    up: int
    down: int
    answers: int

    @property
    def share(self) -> float | None:
        return self.up / (self.up + self.down) if self.up + self.down else None


@dataclass(frozen=True)
class CycleView:
    """The cycle that runs, or the last one that ended. `metrics` are those of its latest progress event."""

    number: int
    cycle_id: str
    status: CycleStatus
    stage: Stage | None
    fraction: float
    seconds: float
    version: str | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    reason: str = ""

    @property
    def running(self) -> bool:
        return self.status in (CycleStatus.STARTED, CycleStatus.PROGRESS, CycleStatus.STAGE_DONE)


@dataclass(frozen=True)
class VersionView:
    """One version on the board."""

    version: str
    state: str
    kl: float | None = None
    win_rate: float | None = None


@dataclass(frozen=True)
class Said:
    """An answer and the thumb it got: 1, -1 or None."""

    version: str
    prompt: str
    text: str
    thumb: int | None


@dataclass(frozen=True)
class DemoState:
    """Everything that a frame shows. Counts are totals since the start."""

    model: str
    seed: int
    folder: str
    elapsed: float
    phase: str
    cycles_wanted: int
    cycles_ended: int = 0
    answers: int = 0
    feedback: int = 0
    labels: int = 0
    retries: int = 0
    bad_on_purpose: int = 0
    topics: dict[str, int] = field(default_factory=dict[str, int])
    tables: dict[str, int] = field(default_factory=dict[str, int])
    dead_letters: int = 0
    rates: tuple[Rate, ...] = ()
    cycle: CycleView | None = None
    versions: tuple[VersionView, ...] = ()
    serving: str | None = None
    said: tuple[Said, ...] = ()
    restarts: int = 0
    task: tuple[str, float] | None = None
    """What the director itself is busy with after the last cycle, and the share that is done."""
