from datetime import UTC, datetime
from itertools import product

import pytest

from schemas.errors import IllegalTransition, UnknownVersion
from schemas.versions import TRANSITIONS, Board, ModelVersion, VersionState, check_transition, move

S = VersionState
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def version(name: str, state: VersionState) -> ModelVersion:
    return ModelVersion(version=name, state=state, base_model="tiny", actor="test")


def board(*events: ModelVersion) -> Board:
    return Board().fold((event, NOW) for event in events)


@pytest.mark.parametrize(("old", "new"), list(product([None, *S], S)))
def test_only_the_tables_transitions_are_allowed(old: VersionState | None, new: VersionState) -> None:
    if new in TRANSITIONS[old]:
        check_transition("v1", old, new)
    else:
        with pytest.raises(IllegalTransition, match="v1"):
            check_transition("v1", old, new)


def test_every_state_is_reached_and_has_a_row() -> None:
    assert set(TRANSITIONS) == {None, *S}
    assert set().union(*TRANSITIONS.values()) == set(S)


def test_a_rejected_version_stays_rejected() -> None:
    with pytest.raises(IllegalTransition, match="final"):
        move(version("v1", S.REJECTED), S.LIVE, actor="ada", reason="please")


def test_the_version_that_became_live_last_serves_until_the_older_one_is_retired() -> None:
    both = board(version("base", S.LIVE), version("v1", S.LIVE))
    live = both.live()
    assert live is not None and live.version == "v1"


def test_a_rollback_returns_to_the_version_retired_last() -> None:
    state = board(
        version("base", S.LIVE), version("v1", S.LIVE), version("base", S.RETIRED), version("v2", S.LIVE),
        version("v1", S.RETIRED),
    )  # fmt: skip
    fallback = state.fallback()
    assert fallback is not None and fallback.version == "v1"


def test_a_repeated_event_changes_nothing() -> None:
    once = board(version("v1", S.LIVE), version("v2", S.LIVE))
    assert once.apply(version("v1", S.LIVE), NOW) is once


def test_an_unknown_version_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownVersion, match=r"v9.*base"):
        board(version("base", S.LIVE)).get("v9")


def test_a_move_keeps_what_is_known_of_the_version_and_says_who_moved_it() -> None:
    moved = move(version("v1", S.REGISTERED), S.CANARY, actor="ada", reason="looks good")
    assert (moved.state, moved.previous_state, moved.actor, moved.reason) == (
        S.CANARY,
        S.REGISTERED,
        "ada",
        "looks good",
    )
