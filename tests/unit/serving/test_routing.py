"""Who answers: the live version, a pinned one, or what remains when an adapter is damaged."""

from datetime import UTC, datetime

import pytest

from schemas.errors import UnknownVersion
from schemas.versions import Board, ModelVersion, VersionState
from serving.core.routing import Route, Service, listed, preference, route, service

LIVE, RETIRED, REJECTED, ROLLED_BACK = (
    VersionState.LIVE, VersionState.RETIRED, VersionState.REJECTED, VersionState.ROLLED_BACK,
)  # fmt: skip


def board(*states: tuple[str, VersionState]) -> Board:
    events = [(ModelVersion(version=v, state=s, base_model="tiny", actor="test"), datetime.now(UTC)) for v, s in states]
    return Board().fold(events)


def test_an_empty_board_is_served_by_the_base() -> None:
    assert preference(Board()) == ("base",)


def test_the_version_promoted_last_is_wanted_most_and_then_those_retired() -> None:
    state = board(("base", RETIRED), ("v1", RETIRED), ("v3", ROLLED_BACK), ("v2", LIVE))
    assert preference(state) == ("v2", "v1", "base")


def test_a_live_base_goes_before_what_was_retired() -> None:
    assert preference(board(("v1", RETIRED), ("base", LIVE))) == ("base", "v1", "base")


def test_the_version_in_service_goes_on_until_its_successor_is_loaded() -> None:
    state = board(("v1", LIVE), ("v2", LIVE))
    assert service(state, loaded=["base", "v1"], failed=[], current="v1") == Service("v1", "v2")
    assert service(state, loaded=["base", "v1", "v2"], failed=[], current="v1") == Service("v2", None)


def test_a_damaged_successor_leaves_the_old_version_in_service() -> None:
    state = board(("base", RETIRED), ("v1", RETIRED), ("v2", LIVE))
    assert service(state, loaded=["base", "v1"], failed=["v2"], current="v1") == Service("v1", None)


def test_after_a_restart_a_damaged_version_is_replaced_by_the_one_before() -> None:
    state = board(("base", RETIRED), ("v1", RETIRED), ("v2", LIVE))
    assert service(state, loaded=["base"], failed=["v2"], current="base") == Service("base", "v1")


def test_both_public_names_mean_the_version_that_serves() -> None:
    for name in ("thumbwheel", "tiny"):
        assert route(name, board=Board(), serving="v7", base_model_name="tiny") == Route("v7", 1.0, pinned=False)


def test_a_pin_names_its_version_whoever_serves() -> None:
    state = board(("v1", RETIRED), ("v2", LIVE))
    assert route("thumbwheel:v1", board=state, serving="v2", base_model_name="tiny") == Route("v1", 1.0, pinned=True)
    assert route("thumbwheel:base", board=state, serving="v2", base_model_name="tiny").version == "base"


@pytest.mark.parametrize("name", ["gpt-4", "thumbwheel:", "thumbwheel:v9", "tiny:v1", ":", "thumbwheel:v3"])
def test_a_name_that_is_no_model_is_unknown(name: str) -> None:
    with pytest.raises(UnknownVersion):
        route(name, board=board(("v1", LIVE), ("v3", REJECTED)), serving="v1", base_model_name="tiny")


def test_a_rejected_version_is_listed_and_pinned_only_where_that_is_allowed() -> None:
    state = board(("v1", LIVE), ("v3", REJECTED))
    assert listed(state, "tiny") == ("thumbwheel", "tiny", "thumbwheel:base", "thumbwheel:v1")
    assert "thumbwheel:v3" in listed(state, "tiny", pin_rejected=True)
    assert route("thumbwheel:v3", board=state, serving="v1", base_model_name="tiny", pin_rejected=True).version == "v3"
