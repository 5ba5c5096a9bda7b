from datetime import UTC, datetime

import pytest

from infra.cli.version_moves import promotion, rollback
from schemas.errors import IllegalTransition, UnknownVersion
from schemas.versions import Board, ModelVersion, VersionState

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def board(**states: VersionState) -> Board:
    events = [ModelVersion(version=v, state=s, base_model="tiny", actor="test") for v, s in states.items()]
    return Board().fold((event, NOW) for event in events)


def said(events: list[ModelVersion]) -> list[tuple[str, str | None, str]]:
    return [(e.version, e.previous_state, e.state) for e in events]


def test_a_promotion_makes_the_new_one_live_before_the_old_one_retires() -> None:
    found = promotion(board(base=VersionState.LIVE, v1=VersionState.REGISTERED), "v1", actor="ada", reason="")
    assert said(found) == [("v1", "registered", "live"), ("base", "live", "retired")]


def test_the_first_promotion_retires_nobody() -> None:
    found = promotion(board(base=VersionState.REGISTERED), "base", actor="ada", reason="")
    assert said(found) == [("base", "registered", "live")]


@pytest.mark.parametrize("state", [VersionState.REJECTED, VersionState.LIVE])
def test_what_is_rejected_or_live_can_not_be_promoted(state: VersionState) -> None:
    with pytest.raises(IllegalTransition, match="v1 is"):
        promotion(board(v1=state), "v1", actor="ada", reason="")


def test_an_unknown_version_is_named_beside_the_known_ones() -> None:
    with pytest.raises(UnknownVersion, match=r"no version v9; known versions: base"):
        promotion(board(base=VersionState.LIVE), "v9", actor="ada", reason="")


def test_a_rollback_returns_to_the_one_retired_last() -> None:
    now = board(base=VersionState.RETIRED, v1=VersionState.RETIRED, v2=VersionState.LIVE)
    found = rollback(now, None, actor="ada", reason="")
    assert said(found) == [("v2", "live", "rolled_back"), ("v1", "retired", "live")]


def test_a_rollback_returns_to_the_one_named() -> None:
    now = board(base=VersionState.RETIRED, v1=VersionState.RETIRED, v2=VersionState.LIVE)
    assert said(rollback(now, "base", actor="ada", reason=""))[1] == ("base", "retired", "live")


@pytest.mark.parametrize(
    ("now", "to", "why"),
    [
        (board(base=VersionState.REGISTERED), None, "no version is live"),
        (board(base=VersionState.LIVE), None, "none to return to"),
        (board(base=VersionState.LIVE), "base", "the live version itself"),
        (board(base=VersionState.LIVE, v1=VersionState.REJECTED), "v1", "final"),
    ],
)
def test_a_rollback_to_nowhere_is_refused(now: Board, to: str | None, why: str) -> None:
    with pytest.raises(IllegalTransition, match=why):
        rollback(now, to, actor="ada", reason="")
