"""Tables that own the offsets of what they hold."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake.exceptions import DeltaError, TableNotFoundError
from pydantic import BaseModel, create_model

from schemas import tables
from schemas.envelope import new_event
from schemas.errors import SettingsError, TableConflict
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id
from schemas.messages import ChatMessage, Closed
from streams.adapters.lake import LakeTable, Move, latest, newest, open_table
from tests.unit.streams.core.test_pairing import response

ROOT = Path(__file__).parents[4]
APP = "ingest/thumbwheel.feedback.v1/0"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def rows(start: int, stop: int, *, partition: int = 0) -> list[dict[str, Any]]:
    said = [Feedback(response_id=new_response_id(), kind=FeedbackKind.COPY) for _ in range(start, stop)]
    events = [new_event(s, source="test", id=f"event-{partition}-{start + i}") for i, s in enumerate(said)]
    return [tables.event_row(e, partition=partition, offset=start + i, ingested_at=NOON) for i, e in enumerate(events)]


def put(table: LakeTable, start: int, stop: int, *, expected: int | None) -> None:
    table.append(table.arrow(rows(start, stop)), {APP: Move(expected, stop)})


def offsets(table: LakeTable) -> list[int]:
    return sorted(table.all().collect().get_column("kafka_offset").to_list())


def test_the_position_is_in_the_same_commit_as_the_rows(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    assert table.position(APP) is None
    put(table, 0, 3, expected=None)
    again = open_table(tmp_path, tables.FEEDBACK)
    assert (again.position(APP), offsets(again)) == (3, [0, 1, 2])


def test_the_stale_commit_of_a_zombie_is_refused(tmp_path: Path) -> None:
    zombie, heir = open_table(tmp_path, tables.FEEDBACK), open_table(tmp_path, tables.FEEDBACK)
    put(heir, 0, 3, expected=None)
    with pytest.raises(TableConflict, match="is at 3, not at None"):
        put(zombie, 0, 5, expected=None)
    zombie.refresh()
    with pytest.raises(TableConflict):
        put(zombie, 0, 5, expected=None)
    assert offsets(zombie) == [0, 1, 2]


def test_writers_of_different_partitions_both_get_through(tmp_path: Path) -> None:
    one, two = open_table(tmp_path, tables.FEEDBACK), open_table(tmp_path, tables.FEEDBACK)
    put(one, 0, 2, expected=None)
    two.append(two.arrow(rows(0, 2, partition=1)), {"ingest/thumbwheel.feedback.v1/1": Move(None, 2)})
    one.refresh()
    assert offsets(one) == [0, 0, 1, 1]


def test_progress_without_rows_is_kept(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    table.append(table.arrow([]), {APP: Move(None, 7)})
    assert open_table(tmp_path, tables.FEEDBACK).position(APP) == 7


def test_compaction_keeps_rows_and_positions_and_spares_other_writers(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK, compact_every_commits=4)
    other = open_table(tmp_path, tables.FEEDBACK)
    for n in range(4):
        put(table, n, n + 1, expected=n or None)
    assert table.maintain()
    assert len(table.files()) == 1
    other.refresh()
    put(other, 4, 6, expected=4)
    table.refresh()
    assert (offsets(table), table.position(APP)) == ([0, 1, 2, 3, 4, 5], 6)


def test_rows_are_found_behind_a_watermark_by_id_and_by_age(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    put(table, 0, 3, expected=None)
    put(table, 3, 6, expected=3)
    assert table.partitions() == [0]
    assert table.rows_between(0, 2, 5).get_column("kafka_offset").to_list() == [2, 3, 4]
    assert (table.first_offset(0, 4), table.first_offset(0, 6), table.first_offset(1, 0)) == (4, None, None)
    assert table.newest_event_ids(0, limit=2) == ["event-0-4", "event-0-5"]
    wanted = table.all().collect().filter(kafka_offset=4).get_column("response_id").to_list()
    assert table.rows_by("response_id", wanted).get_column("kafka_offset").to_list() == [4]
    assert len(table.files({"response_id": (wanted[0], wanted[0])})) == 1


def test_an_empty_table_can_be_read(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.FEEDBACK)
    assert (table.partitions(), table.rows_between(0, 0, 5).height, latest(table).height) == ([], 0, 0)
    assert table.rows_by("response_id", ["x"]).height == 0
    assert table.newest_event_ids(0, limit=5) == []


def test_the_latest_rows_are_the_highest_revisions_without_the_retracted(tmp_path: Path) -> None:
    table = open_table(tmp_path, tables.RESPONSES)
    first, second = response(1, 1), response(2, -1)
    turned = first.model_copy(update={"revision": 2, "thumb": -1})
    gone = second.model_copy(update={"revision": 2, "retracted": True})
    for batch in ([first, second], [gone, turned]):
        table.append(table.arrow([row.model_dump() for row in batch]), {})
    (row,) = latest(table).to_dicts()
    assert (row["response_id"], row["revision"], row["thumb"]) == (first.response_id, 2, -1)


class First(Closed):
    """A table's columns in a first release."""

    key: str
    prompt: tuple[ChatMessage, ...]


class Named(ChatMessage):
    """A turn that also says who spoke."""

    speaker: str | None = None


class Second(First):
    """The same in a second release: a column, and a field inside of another."""

    prompt: tuple[Named, ...]
    tenant: str | None = None


class Clashing(First):
    """What can't follow the first release: a column of another kind, and one that may not be null."""

    key: int  # type: ignore[assignment]
    size: int


def of(row: type[BaseModel]) -> tables.Table:
    return tables.Table("evolving", tables.Layer.GOLD, row, "key")


SAID = {"role": "user", "content": "hello"}


def test_a_table_of_an_earlier_release_gets_the_new_columns_and_its_rows_are_null_there(tmp_path: Path) -> None:
    old = open_table(tmp_path, of(First))
    old.append(old.arrow([{"key": "one", "prompt": [SAID]}]), {APP: Move(None, 1)})
    new = open_table(tmp_path, of(Second))
    new.append(new.arrow([{"key": "two", "prompt": [{**SAID, "speaker": "ann"}], "tenant": "acme"}]), {})
    found = new.all().sort("key").collect().to_dicts()
    assert found == [
        {"key": "one", "prompt": [{**SAID, "speaker": None}], "tenant": None},
        {"key": "two", "prompt": [{**SAID, "speaker": "ann"}], "tenant": "acme"},
    ]
    assert new.position(APP) == 1
    assert open_table(tmp_path, of(Second)).version == new.version  # nothing is added twice


def test_a_worker_of_the_earlier_release_goes_on_reading_and_writing(tmp_path: Path) -> None:
    old = open_table(tmp_path, of(First))
    open_table(tmp_path, of(Second))
    old.append(old.arrow([{"key": "one", "prompt": [SAID]}]), {APP: Move(None, 1)})
    old.append(old.arrow([{"key": "two", "prompt": [SAID]}]), {APP: Move(1, 2)})
    late = open_table(tmp_path, of(First))
    late.append(late.arrow([{"key": "three", "prompt": [SAID]}]), {APP: Move(2, 3)})
    new = open_table(tmp_path, of(Second))
    new.append(new.arrow([{"key": "four", "prompt": [{**SAID, "speaker": "bo"}], "tenant": "acme"}]), {})
    late.refresh()
    assert late.all().collect().sort("key").to_dicts() == [
        {"key": k, "prompt": [SAID]} for k in ("four", "one", "three", "two")
    ]


def test_a_column_of_another_kind_or_that_may_not_be_null_is_refused(tmp_path: Path) -> None:
    open_table(tmp_path, of(First))
    with pytest.raises(SettingsError, match="column key is string, not long; it has no column size"):
        open_table(tmp_path, of(Clashing))
    assert open_table(tmp_path, of(First)).version == 0


def test_a_column_that_may_be_null_by_now_takes_nulls(tmp_path: Path) -> None:
    strict, loose = create_model("R", key=(str, ...)), create_model("R", key=(str | None, None))
    open_table(tmp_path, of(strict))
    table = open_table(tmp_path, of(loose))
    table.append(table.arrow([{"key": None}]), {})
    assert open_table(tmp_path, of(loose)).all().collect().to_dicts() == [{"key": None}]


def test_two_processes_that_add_the_same_columns_at_once_both_get_a_table(tmp_path: Path) -> None:
    rounds = 5
    for number in range(rounds):
        open_table(tmp_path / str(number), of(First))
    script = (
        "import sys; from pathlib import Path; from tests.unit.streams.adapters.test_lake import of, Second;"
        "from streams.adapters.lake import open_table; print('ready', flush=True); sys.stdin.readline();"
        "[open_table(Path(sys.argv[1]) / str(n), of(Second)) for n in range(int(sys.argv[2]))]"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(rounds)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    for process in both:
        process.communicate(b"go\n")
    assert [process.returncode for process in both] == [0, 0]
    for number in range(rounds):
        assert open_table(tmp_path / str(number), of(Second)).all().collect().columns == ["key", "prompt", "tenant"]


CUT = """
import sys, pyarrow as pa
from deltalake import DeltaTable, write_deltalake
path, rows = sys.argv[1], pa.table({"a": [1]})
now = {"delta.logRetentionDuration": "interval 0 seconds"}
write_deltalake(path, rows, configuration=now)
print("ready", flush=True)
while True:
    for _ in range(3):
        write_deltalake(path, rows, mode="append")
    table = DeltaTable(path)
    table.create_checkpoint()
    table.cleanup_metadata()
"""
"""Writes to a table and cuts its log, until it is killed."""


def test_a_table_whose_log_is_cut_at_the_same_moment_opens_all_the_same(tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    with subprocess.Popen([sys.executable, "-c", CUT, path], stdout=subprocess.PIPE) as cutter:
        assert cutter.stdout is not None
        cutter.stdout.readline()
        try:
            versions = [newest(path, None).version() for _ in range(600)]
        finally:
            cutter.kill()
    assert versions == sorted(versions) and versions[-1] > versions[0]


def test_an_error_that_a_new_look_does_not_mend_is_raised(tmp_path: Path) -> None:
    with pytest.raises(TableNotFoundError):
        newest(str(tmp_path / "nothing"), None)
    (tmp_path / "lost" / "_delta_log").mkdir(parents=True)
    (tmp_path / "lost" / "_delta_log" / "00000000000000000007.json").write_text("{}")
    with pytest.raises(DeltaError):
        newest(str(tmp_path / "lost"), None)
