"""What the rollout controller does next, decided from the board alone.

It looks at where the versions stand, never at what it did before: restarted at any point, also between a
promotion and the retirement that belongs to it, it goes on where the log stands, and where nothing is due it
emits nothing.
"""

from typing import Literal

from schemas.ids import content_id
from schemas.versions import BASE_VERSION, Board, ModelVersion, VersionState, move

ACTOR = "rollout-controller"
Promotion = Literal["auto", "manual"]


def next_event(board: Board, *, promotion: Promotion, base_model: str) -> ModelVersion | None:
    """The one event that is due, or None. Publish it, apply it to the board, ask again."""
    return _bootstrap(board, base_model) or _retirement(board) or (_promotion(board) if promotion == "auto" else None)


def event_id(board: Board, event: ModelVersion) -> str:
    """The event's id, the same whoever emits it: two controllers by accident say the same thing twice."""
    standing = board.standings.get(event.version)
    since = standing.since.isoformat() if standing else "never"
    return content_id("rollout", event.version, event.state.value, since)


def _bootstrap(board: Board, base_model: str) -> ModelVersion | None:
    """The base is registered first and serves until something better does. It has no gates to pass."""
    standing = board.standings.get(BASE_VERSION)
    if standing is None:
        return ModelVersion(
            version=BASE_VERSION,
            state=VersionState.REGISTERED,
            base_model=base_model,
            actor=ACTOR,
            reason="the base model, without an adapter",
        )
    if board.live() is None and standing.state is VersionState.REGISTERED:
        return move(standing.event, VersionState.LIVE, actor=ACTOR, reason="the first version to serve")
    return None


def _retirement(board: Board) -> ModelVersion | None:
    live = board.live()
    older = [s.event for s in board.standings.values() if s.state is VersionState.LIVE and live and s.event != live]
    if not live or not older:
        return None
    return move(older[0], VersionState.RETIRED, actor=ACTOR, reason=f"succeeded by {live.version}")


def _promotion(board: Board) -> ModelVersion | None:
    """The newest version registered since the live one went live; any, while the base serves.

    A version registered before that was passed over on purpose, or is older than a rollback.
    """
    live = board.live()
    order = list(board.standings)
    since = -1 if live is None or live.version == BASE_VERSION else order.index(live.version)
    for name in reversed(order[since + 1 :]):
        event = board.standings[name].event
        if name != BASE_VERSION and event.state is VersionState.REGISTERED and passed(event):
            return move(event, VersionState.LIVE, actor=ACTOR, reason="all gates passed")
    return None


def passed(event: ModelVersion) -> bool:
    """Whether the version passed its gates; one without a gate has passed none."""
    return bool(event.gates) and all(gate.passed for gate in event.gates)
