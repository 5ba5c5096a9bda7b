"""Upkeep beside readers and writers: the same rows in fewer files, and nothing gone that somebody may still read."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from pydantic import ValidationError

from schemas import tables
from schemas.errors import TableConflict
from schemas.storage import PINS_FOLDER
from schemas.tables import DeadLetterRow
from schemas.topics import FEEDBACK, OUTPUTS
from streams.adapters.lake import LakeTable, Move, arrow_schema, open_table
from streams.metrics import Metrics
from streams.settings import StreamSettings
from streams.upkeep import Keeper, upkeep
from tests.unit.streams.adapters.test_lake import APP, ROOT, offsets, put

NOW = datetime.now(UTC)


def settings(root: Path, **more: object) -> StreamSettings:
    return StreamSettings(data=root, **more)  # type: ignore[arg-type]


def filled(root: Path, commits: int = 6) -> LakeTable:
    table = open_table(root / "lake", tables.FEEDBACK)
    for n in range(commits):
        put(table, n, n + 1, expected=n or None)
    return table


def at(root: Path, version: int) -> list[int]:
    frame = pl.scan_delta(str(root / "lake" / tables.FEEDBACK.path), version=version)
    return sorted(frame.select("kafka_offset").collect()["kafka_offset"].to_list())


def test_small_files_become_one_and_every_version_stays_readable(tmp_path: Path) -> None:
    table = filled(tmp_path)
    (report,) = upkeep(tmp_path / "lake", [tables.FEEDBACK], settings(tmp_path))
    assert (report.table, report.files_before, report.files, report.put_off) == ("bronze/feedback", 6, 1, None)
    assert [at(tmp_path, v) for v in (3, 6)] == [[0, 1, 2], [0, 1, 2, 3, 4, 5]]
    table.refresh()
    assert (offsets(table), table.position(APP)) == ([0, 1, 2, 3, 4, 5], 6)


def test_a_handle_that_slept_while_the_log_was_cut_reads_and_writes_on(tmp_path: Path) -> None:
    table = filled(tmp_path)
    sleepers = [open_table(tmp_path / "lake", tables.FEEDBACK) for _ in range(3)]
    for n in range(6, 12):
        put(table, n, n + 1, expected=n)
    table.compact(1 << 20)
    table.keep_log(timedelta(0), files=timedelta(days=1))
    put(table, 12, 13, expected=12)
    log = tmp_path / "lake" / tables.FEEDBACK.path / "_delta_log"
    assert len(list(log.glob("*.json"))) < 6, "the log was not cut"
    sleepers[0].refresh()
    assert (offsets(sleepers[0]), sleepers[0].position(APP)) == (list(range(13)), 13)
    with pytest.raises(TableConflict):
        put(sleepers[1], 6, 9, expected=6)
    sleepers[2].append(sleepers[2].arrow([]), {"another": Move(None, 1)})
    again = open_table(tmp_path / "lake", tables.FEEDBACK)
    assert (offsets(again), again.position(APP), again.position("another")) == (list(range(13)), 13, 1)
    assert sleepers[2].version == again.version


def test_a_reader_that_holds_an_old_version_reads_it_to_the_end(tmp_path: Path) -> None:
    reader = filled(tmp_path)
    held = reader.all()
    upkeep(tmp_path / "lake", [tables.FEEDBACK], settings(tmp_path))
    assert held.collect().height == 6


def test_files_of_versions_that_nobody_needs_any_more_go_and_the_newest_stays(tmp_path: Path) -> None:
    table = filled(tmp_path)
    table.compact(1 << 20)
    assert table.clear(keep=timedelta(0), now=NOW) == 6
    again = open_table(tmp_path / "lake", tables.FEEDBACK)
    assert (offsets(again), again.position(APP)) == ([0, 1, 2, 3, 4, 5], 6)
    put(again, 6, 7, expected=6)
    assert offsets(again) == [0, 1, 2, 3, 4, 5, 6]


def test_a_file_that_a_writer_has_not_committed_yet_stays_and_what_a_dead_one_left_goes(tmp_path: Path) -> None:
    table = filled(tmp_path)
    folder = tmp_path / "lake" / tables.FEEDBACK.path
    young, old = folder / "part-young.parquet", folder / "part-old.parquet"
    for path in (young, old):
        path.write_bytes(b"half")
    months_ago = (NOW - timedelta(days=60)).timestamp()
    os.utime(old, (months_ago, months_ago))
    table.clear(keep=timedelta(days=30), now=NOW)
    assert (young.exists(), old.exists()) == (True, False)


def parts(root: Path) -> set[str]:
    return {path.name for path in (root / "lake" / tables.FEEDBACK.path).glob("*.parquet")}


def pin(root: Path, name: str, files: Iterable[str]) -> Path:
    file = root / "lake" / tables.FEEDBACK.path / PINS_FOLDER / f"{name}.parquet"
    file.parent.mkdir(exist_ok=True)
    pl.DataFrame({"path": list(files), "rows": [1 for _ in files]}).write_parquet(file)
    return file


def test_pinned_files_outlive_the_vacuum_until_the_pin_has_had_its_days(tmp_path: Path) -> None:
    table = filled(tmp_path, 3)
    pinned = parts(tmp_path)
    listed = pin(tmp_path, "cycle-1", pinned)
    for n in range(3, 6):
        put(table, n, n + 1, expected=n)
    table.compact(1 << 20)
    assert table.clear(keep=timedelta(0), now=NOW, pins=timedelta(days=30)) == 3
    (compacted,) = {path.rsplit("/", 1)[-1] for path in table.files()}
    assert parts(tmp_path) == {*pinned, compacted}
    later = NOW + timedelta(days=31)
    assert table.clear(keep=timedelta(0), now=later, pins=timedelta(days=32)) == 0
    assert table.clear(keep=timedelta(0), now=later, pins=timedelta(days=30)) == 3
    assert (listed.exists(), parts(tmp_path), offsets(table)) == (False, {compacted}, list(range(6)))


def test_a_list_of_pins_that_can_not_be_read_lets_nothing_be_removed_and_is_named(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    pin(tmp_path, "cycle-1", []).write_bytes(b"half")
    days_ago = (NOW - timedelta(days=9)).timestamp()
    stray = tmp_path / "lake" / tables.FEEDBACK.path / "part-stray.parquet"
    stray.write_bytes(b"left by a writer that was killed")
    os.utime(stray, (days_ago, days_ago))
    (report,) = upkeep(tmp_path / "lake", [tables.FEEDBACK], settings(tmp_path))
    assert "cycle-1.parquet is no list of pinned files" in (report.put_off or "")
    assert stray.exists()


def test_what_compaction_has_just_replaced_stays_however_old_it_is_and_whatever_the_log_has_forgotten(
    tmp_path: Path,
) -> None:
    """Its age counts from when it was replaced, which checkpoints remember, not from when it was written."""
    table = filled(tmp_path)
    replaced = parts(tmp_path)
    months_ago = (NOW - timedelta(days=60)).timestamp()
    for name in replaced:
        os.utime(tmp_path / "lake" / tables.FEEDBACK.path / name, (months_ago, months_ago))
    table.compact(1 << 20)
    log = tmp_path / "lake" / tables.FEEDBACK.path / "_delta_log"
    for n in range(6, 8):
        put(table, n, n + 1, expected=n)
        table.compact(1 << 20)
        for entry in log.iterdir():
            os.utime(entry, (months_ago, months_ago))
    table.keep_log(timedelta(minutes=1), files=timedelta(days=1))
    assert min(int(path.name[:20]) for path in log.glob("0*")) > 7, "the first compaction is still in the log"
    again = open_table(tmp_path / "lake", tables.FEEDBACK)
    assert again.clear(keep=timedelta(days=1), now=NOW) == 0
    assert parts(tmp_path) > replaced
    assert again.clear(keep=timedelta(0), now=NOW) == 6 + 2 + 2


def test_a_table_of_an_earlier_release_gets_the_times_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "lake" / tables.RATINGS.path
    path.mkdir(parents=True)
    month = {"delta.logRetentionDuration": "interval 30 days", "delta.deletedFileRetentionDuration": "interval 30 days"}
    DeltaTable.create(str(path), schema=arrow_schema(tables.RATINGS), configuration=month)
    upkeep(tmp_path / "lake", [tables.RATINGS], settings(tmp_path, keep_log_minutes=5, keep_files_days=2))
    properties = DeltaTable(str(path)).metadata().configuration
    assert properties["delta.logRetentionDuration"] == "interval 300 seconds"
    assert properties["delta.deletedFileRetentionDuration"] == f"interval {2 * 86_400} seconds"


def test_its_writer_cuts_the_log_of_a_table_each_time_that_it_compacts_it(tmp_path: Path) -> None:
    """Entries get the age that they would have at a commit a second; no upkeep runs beside it."""
    table = open_table(tmp_path / "lake", tables.FEEDBACK, compact_every_commits=25)
    table.keep_log(timedelta(seconds=30), files=timedelta(days=1))
    log, most = tmp_path / "lake" / tables.FEEDBACK.path / "_delta_log", 0
    for n in range(150):
        put(table, n, n + 1, expected=n or None)
        most = max(most, len(list(log.glob("*.json"))))
        now = datetime.now(UTC).timestamp()
        for entry in log.glob("0*"):
            age = table.version - int(entry.name[:20])
            os.utime(entry, (now - age, now - age))
        table.maintain()
    assert offsets(table) == list(range(150))
    assert 30 <= most <= 30 + 2 * 27, "the entries of 30 seconds and of two intervals between compactions"


def letter(number: int, age: timedelta) -> dict[str, object]:
    return DeadLetterRow(
        dead_letter_id=f"dead-{number}", topic=FEEDBACK.name, kafka_partition=0, kafka_offset=number,
        reason="empty_value", detail="", headers="[]", failed_at=NOW - age,
    ).model_dump()  # fmt: skip


def test_dead_letters_expire_after_their_days_and_nothing_else_does(tmp_path: Path) -> None:
    table = open_table(tmp_path / "lake", tables.DEAD_LETTERS)
    ages = [timedelta(days=d) for d in (100, 91, 89, 0)]
    for n, age in enumerate(ages):
        table.append(table.arrow([letter(n, age)]), {APP: Move(n or None, n + 1)})
    kept = [tables.DEAD_LETTERS, tables.OUTPUTS]
    report, _ = upkeep(tmp_path / "lake", kept, settings(tmp_path), now=NOW)
    table.refresh()
    assert (report.expired_rows, table.position(APP)) == (2, 4)
    assert sorted(table.all().collect()["dead_letter_id"].to_list()) == ["dead-2", "dead-3"]


def test_what_other_tables_are_computed_from_can_not_expire(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="rows of feedback, responses can't expire"):
        settings(tmp_path, retention_days={"feedback": 30, "responses": 30})


def test_a_writer_goes_on_committing_while_its_table_is_compacted(tmp_path: Path) -> None:
    table, commits = filled(tmp_path, 1), 60
    stop, rounds = threading.Event(), []

    def compact() -> None:
        other = open_table(tmp_path / "lake", tables.FEEDBACK)
        while not stop.is_set():
            other.refresh()
            other.compact(1 << 20)
            rounds.append(other.version)

    beside = threading.Thread(target=compact)
    beside.start()
    for n in range(1, commits):
        put(table, n, n + 1, expected=n)
    stop.set()
    beside.join()
    table.refresh()
    assert offsets(table) == list(range(commits))
    assert rounds


def test_of_two_that_compact_at_once_one_does_it_and_the_other_puts_it_off(tmp_path: Path) -> None:
    first, second = filled(tmp_path), open_table(tmp_path / "lake", tables.FEEDBACK)
    first.compact(1 << 20)
    files = second.size().files
    (report,) = upkeep(tmp_path / "lake", [tables.FEEDBACK], settings(tmp_path))
    assert (files, report.files_before, report.files, report.put_off) == (6, 1, 1, None)


def test_the_worker_that_owns_partition_0_keeps_the_table(tmp_path: Path) -> None:
    keeper = Keeper(settings(tmp_path, compact_every_commits=2), Metrics(), threading.Event())
    filled(tmp_path)
    for _ in range(2):
        keeper.committed("feedback")
    keeper.compact_due()
    assert open_table(tmp_path / "lake", tables.FEEDBACK).size().files == 6
    keeper.own(FEEDBACK.name, 0)
    keeper.own(OUTPUTS.name, 1)
    for _ in range(2):
        keeper.committed("feedback")
    keeper.compact_due()
    assert open_table(tmp_path / "lake", tables.FEEDBACK).size().files == 1
    assert (keeper.keeps(tables.FEEDBACK), keeper.keeps(tables.OUTPUTS), keeper.keeps(tables.RATINGS)) == (
        True,
        False,
        False,
    )


SCRIPT = """
import os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from schemas import tables
from streams.adapters.lake import open_table
root, keep = Path(sys.argv[1]), timedelta(hours=int(sys.argv[2]))
print("ready", flush=True)
while True:
    for n in range(50):
        left = root / tables.FEEDBACK.path / f"part-left-{n}.parquet"
        left.write_bytes(b"half")
        os.utime(left, (0, 0))
    table = open_table(root, tables.FEEDBACK)
    table.compact(1 << 20)
    table.clear(keep=keep, now=datetime.now(UTC))
    print("round", flush=True)
"""


def tending(root: Path, *, keep_hours: int) -> subprocess.Popen[bytes]:
    """A process that does nothing but compact and vacuum; begun, and through its first round."""
    command = [sys.executable, "-c", SCRIPT, str(root / "lake"), str(keep_hours)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"ready\n", b"round\n"]
    return process


def killed(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def whole(root: Path, rows: int) -> None:
    """The table has these rows, takes more, and can be tended."""
    table = open_table(root / "lake", tables.FEEDBACK)
    assert (offsets(table), table.position(APP)) == (list(range(rows)), rows)
    put(table, rows, rows + 1, expected=rows)
    (report,) = upkeep(root / "lake", [tables.FEEDBACK], settings(root))
    assert (report.files, report.put_off) == (1, None)


def test_kill_9_in_the_midst_of_upkeep_beside_a_writer_leaves_the_table_whole(tmp_path: Path) -> None:
    table = filled(tmp_path)
    for kill in range(3):
        process = tending(tmp_path, keep_hours=24)
        for n in range(6 + 10 * kill, 16 + 10 * kill):
            put(table, n, n + 1, expected=n)
        killed(process)
    whole(tmp_path, 36)


def test_kill_9_in_the_midst_of_a_vacuum_leaves_the_table_whole(tmp_path: Path) -> None:
    """No writer beside it, and no version kept: the most that can be removed."""
    table = filled(tmp_path)
    for kill in range(3):
        put(table, 6 + kill, 7 + kill, expected=6 + kill)
        killed(tending(tmp_path, keep_hours=0))
    whole(tmp_path, 9)
