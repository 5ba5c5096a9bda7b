"""The lab's files after a kill: results, and the log in the broker's place."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.lab.log import RecordedEvents, whole_lines
from infra.lab.results import Results, finished
from schemas.cycles import Cost, Cycle, CycleStatus, Stage
from schemas.envelope import Event, new_event
from schemas.errors import SettingsError
from schemas.versions import ModelVersion, VersionState, move
from tests.unit.infra.lab.made import failed, promoted, refused

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def version(state: VersionState = VersionState.REGISTERED) -> ModelVersion:
    return ModelVersion(version="v1", state=state, base_model="tiny", actor="test")


def started() -> Event[Cycle]:
    data = Cycle(cycle_id="c1", status=CycleStatus.STARTED, stage=Stage.PIN, cost=Cost(seconds=0.0))
    return new_event(data, source="test", id="c1-started")


def test_results_come_back_as_they_were_in_order_of_seed_and_cycle(tmp_path: Path) -> None:
    results = Results(tmp_path)
    made = [promoted(1, 1), refused(0, 2), failed(0, 1)]
    for result in made:
        results.append(result)
    assert results.read() == [made[2], made[1], made[0]]
    assert finished(results.read()) == {(0, 1), (0, 2), (1, 1)}


def test_a_figure_that_is_no_number_is_kept_as_such(tmp_path: Path) -> None:
    Results(tmp_path).append(promoted(0, 1, kl=float("nan")))
    (found,) = Results(tmp_path).read()
    assert found.kl is not None and found.kl != found.kl


def test_a_line_that_a_kill_cut_off_is_dropped_and_the_next_one_begins_afresh(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.append(promoted(0, 1))
    whole = results.file.read_bytes()
    results.file.write_bytes(whole + whole[: len(whole) // 2])
    assert finished(results.read()) == {(0, 1)}
    results.append(promoted(0, 2))
    assert finished(results.read()) == {(0, 1), (0, 2)}


def test_a_line_of_something_else_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"seed": 1}\n')
    with pytest.raises(SettingsError, match=r"results\.jsonl, line 1 is no result of this release"):
        Results(tmp_path).read()


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert whole_lines(tmp_path / "none") == [] and Results(tmp_path).read() == []


def test_the_log_says_the_same_to_the_next_process(tmp_path: Path) -> None:
    events = RecordedEvents(tmp_path / "events.jsonl")
    events.publish(new_event(version(), source="test", id="one", time=NOON))
    live = move(version(), VersionState.LIVE, actor="test", reason="")
    events.publish(new_event(live, source="test", id="two", time=NOON))
    events.publish(started())
    again = RecordedEvents(tmp_path / "events.jsonl")
    assert again.board() == events.board() and again.board().live() == live
    assert again.published() == events.published()


def test_an_event_that_is_sent_twice_counts_once(tmp_path: Path) -> None:
    event = started()
    for _ in range(2):
        events = RecordedEvents(tmp_path / "events.jsonl")
        events.publish(event)
        events.publish(event)
    assert len(whole_lines(tmp_path / "events.jsonl")) == 1


def test_progress_is_told_and_not_written(tmp_path: Path) -> None:
    heard: list[Cycle] = []
    RecordedEvents(tmp_path / "events.jsonl", heard=heard.append).offer(started())
    assert [c.cycle_id for c in heard] == ["c1"] and whole_lines(tmp_path / "events.jsonl") == []
