"""What a promotion or a rollback by hand says on the log. Pure: from a board to events."""

from schemas.errors import IllegalTransition
from schemas.versions import Board, ModelVersion, VersionState, move


def promotion(board: Board, version: str, *, actor: str, reason: str) -> list[ModelVersion]:
    """The events that make `version` serve: it goes live, then what was live retires.

    In this order a reader that stops in between sees two live versions, of which the later serves: never none.
    Raises `UnknownVersion`, or `IllegalTransition` (also where it is live already).
    """
    target = board.get(version)
    before = board.live()
    events = [move(target, VersionState.LIVE, actor=actor, reason=reason or "promoted by hand")]
    if before is not None and before.version != version:
        events.append(move(before, VersionState.RETIRED, actor=actor, reason=f"succeeded by {version}"))
    return events


def rollback(board: Board, version: str | None, *, actor: str, reason: str) -> list[ModelVersion]:
    """The events that take the live version back and make `version` (by default the one retired last) serve.

    The live one is rolled back first: were both live for a moment, the controller would retire it as if it had been
    succeeded in good order. Raises `UnknownVersion` or `IllegalTransition`.
    """
    live = board.live()
    if live is None:
        raise IllegalTransition("no version is live, so there is nothing to roll back; see `thumbwheel versions list`")
    target = board.get(version) if version else board.fallback()
    if target is None:
        raise IllegalTransition(
            f"{live.version} is the first version that ever served: there is none to return to; "
            "name one by `thumbwheel versions rollback VERSION`"
        )
    if target.version == live.version:
        raise IllegalTransition(f"{live.version} is the live version itself; name the version to return to")
    back = move(live, VersionState.ROLLED_BACK, actor=actor, reason=reason or f"rolled back to {target.version}")
    forth = move(target, VersionState.LIVE, actor=actor, reason=f"{live.version} was rolled back")
    return [back, forth]
