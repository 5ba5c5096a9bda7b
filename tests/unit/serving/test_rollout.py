"""What the controller emits, from every place where it may have been interrupted."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.versions import Board, GateResult, ModelVersion, VersionState, check_transition, move
from serving.core.rollout import event_id, next_event, passed

START = datetime(2026, 1, 1, tzinfo=UTC)


def registered(version: str, *gates: bool) -> ModelVersion:
    results = tuple(GateResult(name=f"g{n}", passed=ok, value=0.0, threshold=0.0) for n, ok in enumerate(gates))
    return ModelVersion(
        version=version,
        state=VersionState.REGISTERED,
        base_model="tiny",
        adapter_path=version,
        gates=results,
        actor="t",
    )


def put(board: Board, event: ModelVersion) -> Board:
    return board.apply(event, START + timedelta(seconds=len(board.standings)))


def run(board: Board, promotion: str = "auto") -> tuple[Board, list[str]]:
    """The board when nothing is due any more, and what was emitted until then."""
    emitted: list[str] = []
    while event := next_event(board, promotion=promotion, base_model="tiny"):  # type: ignore[arg-type]
        check_transition(event.version, board.state(event.version), event.state)
        emitted.append(f"{event.version} {event.state.value}")
        board = put(board, event)
        assert len(emitted) < 50
    return board, emitted


def test_an_empty_board_gets_the_base_and_makes_it_live() -> None:
    assert run(Board())[1] == ["base registered", "base live"]


def test_a_version_that_passed_goes_live_and_then_its_predecessor_is_retired() -> None:
    board, _ = run(Board())
    board, emitted = run(put(board, registered("v1", True, True)))
    assert emitted == ["v1 live", "base retired"]
    assert run(put(board, registered("v2", True)))[1] == ["v2 live", "v1 retired"]


def test_a_version_with_a_failed_gate_or_without_any_stays_where_it_is() -> None:
    board, _ = run(Board())
    assert run(put(board, registered("v1", True, False)))[1] == []
    assert run(put(board, registered("v2")))[1] == []
    assert not passed(registered("v2"))


def test_a_crash_between_promotion_and_retirement_is_made_good() -> None:
    board, _ = run(Board())
    v1 = registered("v1", True)
    crashed = put(put(board, v1), move(v1, VersionState.LIVE, actor="t", reason=""))
    assert run(crashed)[1] == ["base retired"]


def test_a_version_registered_before_the_controller_ever_ran_is_promoted() -> None:
    assert run(put(Board(), registered("v1", True)))[1] == ["base registered", "base live", "v1 live", "base retired"]


def test_of_several_registered_versions_the_newest_is_promoted() -> None:
    board, _ = run(Board())
    assert run(put(put(board, registered("v1", True)), registered("v2", True)))[1] == ["v2 live", "base retired"]


def test_a_version_that_was_rolled_back_is_not_promoted_again() -> None:
    board, _ = run(put(Board(), registered("v1", True)))
    board, _ = run(put(board, registered("v2", True)))
    board = put(board, move(board.get("v1"), VersionState.LIVE, actor="human", reason="v2 harms"))
    board = put(board, move(board.get("v2"), VersionState.ROLLED_BACK, actor="human", reason="v2 harms"))
    assert run(board)[1] == []


def test_with_manual_promotion_only_what_a_human_promoted_is_followed_up() -> None:
    board, emitted = run(Board(), "manual")
    assert emitted == ["base registered", "base live"]
    v1 = registered("v1", True)
    assert run(put(board, v1), "manual")[1] == []
    promoted = put(put(board, v1), move(v1, VersionState.LIVE, actor="human", reason=""))
    assert run(promoted, "manual")[1] == ["base retired"]


def test_an_event_has_the_same_id_whoever_emits_it_and_another_one_the_next_time() -> None:
    board, _ = run(Board())
    board = put(board, registered("v1", True))
    due = next_event(board, promotion="auto", base_model="tiny")
    assert due is not None
    assert event_id(board, due) == event_id(board, due)
    later = board.apply(board.get("v1").model_copy(update={"reason": "again"}), START + timedelta(days=1))
    assert event_id(later, due) != event_id(board, due)


@given(st.lists(st.tuples(st.sampled_from(["v1", "v2", "v3"]), st.booleans()), max_size=6), st.integers(0, 20))
def test_wherever_it_stops_it_ends_with_one_live_version_and_says_nothing_twice(
    arrivals: list[tuple[str, bool]], stop_after: int
) -> None:
    board = Board()
    for version, ok in arrivals:
        if board.state(version) is None:
            board = put(board, registered(version, ok))
        if stop_after and (event := next_event(board, promotion="auto", base_model="tiny")):
            board, stop_after = put(board, event), stop_after - 1
    board, _ = run(board)
    live = [v for v, s in board.standings.items() if s.state is VersionState.LIVE]
    assert len(live) == 1
    assert run(board)[1] == []
