"""Topic `thumbwheel.model-versions.v1`: the life of a model version, as one transition table.

registered ─► shadow ─► canary ─► live ─► retired
    │  └────────┴─────────┘▲ │      │        │
    ▼ (no gate passed)     │ ▼      ▼        └► live again (a successor was rolled back)
 rejected                rolled_back
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.errors import IllegalTransition, UnknownVersion
from schemas.messages import Closed, Fraction, Identifier, Payload

BASE_VERSION = "base"


class VersionState(StrEnum):
    """Where a version stands on its way to all of the traffic."""

    REGISTERED = "registered"
    SHADOW = "shadow"
    CANARY = "canary"
    LIVE = "live"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


_S = VersionState
TRANSITIONS: dict[VersionState | None, frozenset[VersionState]] = {
    None: frozenset({_S.REGISTERED, _S.REJECTED}),
    _S.REGISTERED: frozenset({_S.SHADOW, _S.CANARY, _S.LIVE, _S.REJECTED}),
    _S.SHADOW: frozenset({_S.CANARY, _S.LIVE, _S.ROLLED_BACK}),
    _S.CANARY: frozenset({_S.LIVE, _S.ROLLED_BACK}),
    _S.LIVE: frozenset({_S.RETIRED, _S.ROLLED_BACK}),
    _S.RETIRED: frozenset({_S.LIVE}),
    _S.ROLLED_BACK: frozenset({_S.CANARY, _S.LIVE}),
    _S.REJECTED: frozenset(),
}


class GateResult(Closed):
    """One gate's verdict: what was measured, its interval, what was asked for, and whether it held.

    `cases` is how many it rests on; `remedy` is there where it did not hold.
    """

    name: Identifier
    passed: bool
    value: float
    low: float | None = None
    high: float | None = None
    threshold: float
    detail: str = ""
    cases: int | None = None
    remedy: str | None = None


class ModelVersion(Payload):
    """A version's new state, with all that a gateway needs to serve it and a human to judge it.

    `adapter_path` is relative to the registry folder (or an absolute URI); the base itself has none.
    `kl` is in nats per completion against the base, `win_rate` the judge's, against the parent.
    """

    schema_name: ClassVar[str] = "model-versions"

    version: Identifier
    state: VersionState
    previous_state: VersionState | None = None
    parent: Identifier | None = None
    base_model: Identifier
    adapter_path: str | None = None
    adapter_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    cycle_id: Identifier | None = None
    gates: tuple[GateResult, ...] = ()
    kl: float | None = None
    win_rate: Fraction | None = None
    actor: Identifier
    reason: str = ""

    @property
    def partition_key(self) -> str:
        return self.version


def check_transition(version: str, old: VersionState | None, new: VersionState) -> None:
    """Raise `IllegalTransition` unless `version` may go from `old` to `new`."""
    allowed = TRANSITIONS[old]
    if new not in allowed:
        choices = ", ".join(sorted(allowed)) or "nothing: this state is final"
        raise IllegalTransition(
            f"version {version} is {old or 'unknown'} and can't become {new}; from here it can become {choices}"
        )


@dataclass(frozen=True)
class Standing:
    """A version's latest event and when it happened."""

    event: ModelVersion
    since: datetime

    @property
    def state(self) -> VersionState:
        return self.event.state


@dataclass(frozen=True)
class Board:
    """What is known of all versions: the fold of the topic, the same in every process that reads it.

    Two versions can be `live` for a moment, between a successor's promotion and its predecessor's
    retirement; the one promoted last serves.
    """

    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])

    def apply(self, event: ModelVersion, time: datetime) -> "Board":
        """The board after one more event. Order is the log's; a repeat changes nothing but its time."""
        known = self.standings.get(event.version)
        if known is not None and known.event == event:
            return self
        rest = {name: s for name, s in self.standings.items() if name != event.version}
        return Board(rest | {event.version: Standing(event, time)})

    def fold(self, events: Iterable[tuple[ModelVersion, datetime]]) -> "Board":
        """The board after many events."""
        board = self
        for event, time in events:
            board = board.apply(event, time)
        return board

    def state(self, version: str) -> VersionState | None:
        """The version's state, or None where it was never heard of."""
        standing = self.standings.get(version)
        return standing.state if standing else None

    def get(self, version: str) -> ModelVersion:
        """The version's latest event; raises `UnknownVersion`."""
        if version not in self.standings:
            known = ", ".join(sorted(self.standings)) or "none yet"
            raise UnknownVersion(f"there is no version {version}; known versions: {known}")
        return self.standings[version].event

    def live(self) -> ModelVersion | None:
        """The version that serves: of all that are live the one that became so last."""
        return self._latest(VersionState.LIVE)

    def fallback(self) -> ModelVersion | None:
        """The version that a rollback returns to: the one retired last."""
        return self._latest(VersionState.RETIRED)

    def _latest(self, state: VersionState) -> ModelVersion | None:
        # Dict order is the log's order: the last one in it changed last.
        found = [s.event for s in self.standings.values() if s.state is state]
        return found[-1] if found else None


def move(event: ModelVersion, new: VersionState, *, actor: str, reason: str) -> ModelVersion:
    """The event that moves a version on to `new`; raises `IllegalTransition`."""
    check_transition(event.version, event.state, new)
    return event.model_copy(update={"state": new, "previous_state": event.state, "actor": actor, "reason": reason})
