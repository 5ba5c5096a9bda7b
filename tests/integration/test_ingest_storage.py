"""The lake in an S3-compatible store, over a socket; and a disk that is full."""

import json
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.local.ports import free_port
from schemas import tables
from schemas.errors import TableConflict
from schemas.storage import LakeRoot
from schemas.topics import OUTPUTS
from streams.adapters.lake import latest, open_table
from streams.settings import StreamSettings
from tests.integration.streams_kit import Kit, event, output, stop, until
from tests.unit.streams.adapters.test_lake import APP, offsets, put


@pytest.fixture(scope="module")
def store() -> Iterator[LakeRoot]:
    """A bucket in a store of its own process; deltalake waits for it while it holds the interpreter."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bucket = urllib.request.Request(f"http://127.0.0.1:{port}/lake", method="PUT")

    def made() -> bool:
        try:
            return urllib.request.urlopen(bucket, timeout=5).status == 200
        except OSError:
            return False

    until(made, "the bucket")
    options = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_ALLOW_HTTP": "true",
    }
    yield LakeRoot.of("s3://lake/thumbwheel", options)
    server.kill()
    server.wait()


def inside(store: LakeRoot, name: str) -> LakeRoot:
    return LakeRoot.of(store.at(name), store.options)


def test_a_table_in_a_store_reads_writes_and_refuses_like_one_in_a_folder(store: LakeRoot) -> None:
    root = inside(store, "table")
    table, zombie = open_table(root, tables.FEEDBACK), open_table(root, tables.FEEDBACK)
    put(table, 0, 3, expected=None)
    with pytest.raises(TableConflict):
        put(zombie, 0, 5, expected=None)
    put(zombie, 3, 5, expected=3)
    table.refresh()
    assert (offsets(table), table.newest_event_ids(0, limit=2)) == ([0, 1, 2, 3, 4], ["event-0-3", "event-0-4"])
    assert (table.rows_between(0, 1, 3).height, latest(table).height) == (2, 5)


def test_a_table_in_a_store_is_compacted_and_cleared(store: LakeRoot) -> None:
    table = open_table(inside(store, "upkeep"), tables.FEEDBACK)
    for n in range(4):
        put(table, n, n + 1, expected=n or None)
    table.compact(1 << 20)
    assert (table.size().files, table.clear(keep=timedelta(0), now=datetime.now(UTC))) == (1, 4)
    assert (offsets(table), table.position(APP)) == ([0, 1, 2, 3], 4)


def test_ingest_works_on_a_store_and_goes_on_where_it_stopped(
    store: LakeRoot, fresh_broker: str, tmp_path: Path
) -> None:
    kit, root = Kit(fresh_broker, tmp_path / "data"), inside(store, "ingest")
    for part in (["one", "two"], ["two", "three"]):
        kit.send(*(event(output(), id=name) for name in part))
        kit.send_raw(OUTPUTS.name, b"broken")
        ingest = kit.ingest(lake=root)
        until(
            lambda last=part[-1]: last in open_table(root, tables.OUTPUTS).all().collect()["event_id"].to_list(),
            "the rows",
            doing=ingest.step,
        )
        ingest._consumer.close()
    found = open_table(root, tables.OUTPUTS).all().collect()
    counts = found.group_by("event_id").len().rows()
    assert sorted(name for name, _ in counts) == ["one", "three", "two"]
    assert not (tmp_path / "data" / "lake").exists()


def test_the_lake_is_below_the_data_folder_unless_it_is_said_to_be_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert str(StreamSettings(data=tmp_path).lake) == str(tmp_path / "lake")
    assert StreamSettings(data=tmp_path).lake.client_options() is None
    monkeypatch.setenv("THUMBWHEEL_LAKE", "s3://bucket/prefix/")
    monkeypatch.setenv("THUMBWHEEL_LAKE_OPTIONS", json.dumps({"AWS_REGION": "eu-central-1", "aws_secret": "hush"}))
    lake = StreamSettings(data=tmp_path).lake
    assert lake.at("gold/ratings") == "s3://bucket/prefix/gold/ratings"
    assert lake.client_options() == {"aws_conditional_put": "etag", "aws_region": "eu-central-1", "aws_secret": "hush"}
    assert "hush" not in f"{lake} {lake!r} {StreamSettings(data=tmp_path)!r}"


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        told = json.loads(error.read())
        assert (error.code, told["ready"], list(told["stalled"])) == (503, False, [OUTPUTS.name])
        return False


def _limit_files(process: subprocess.Popen[bytes], size: int) -> None:
    """From now on no file of this process can grow beyond `size`: what a full disk is to a writer. It can be lifted."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_stops_the_taking_says_so_loses_nothing_and_goes_on(fresh_broker: str, tmp_path: Path) -> None:
    kit, port = Kit(fresh_broker, tmp_path / "data"), free_port()
    process = kit.start("ingest", METRICS_PORT=str(port), RETRY_SECONDS="0.1")
    try:
        before, during, after = ([event(output(f"{when} {n}")) for n in range(30)] for when in ("a", "b", "c"))
        kit.send(*before)
        until(lambda: kit.rows(tables.OUTPUTS).height == 30, "the rows from before")
        _limit_files(process, 4_096)  # enough for some lines of its log, too little for any file of a table
        kit.send(*during)
        until(lambda: not _ready(port), "the word that it can't store")
        kit.send(*after)
        assert kit.rows(tables.OUTPUTS).height == 30
        _limit_files(process, resource.RLIM_INFINITY)
        until(lambda: kit.rows(tables.OUTPUTS).height == 90, "every row")
        until(lambda: _ready(port), "the word that it can store again")
        assert stop(process) == 0
    finally:
        process.kill()
        process.wait()
    sent = [e.id for e in (*before, *during, *after)]
    assert sorted(kit.rows(tables.OUTPUTS)["event_id"]) == sorted(sent)
    assert "can't store now: nothing is taken" in (kit.data / "ingest.log").read_text()
