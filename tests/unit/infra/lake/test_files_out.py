import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from infra.lake import files_out
from infra.lake.files_out import Format
from schemas.errors import SettingsError

SCHEMA = pa.schema([pa.field("n", pa.int64())])


def test_a_file_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")

    def interrupted() -> None:
        with files_out.whole(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    assert path.read_text() == "before"


def test_a_finished_file_takes_its_place_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with files_out.whole(path) as draft:
        draft.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    files_out.refuse_to_overwrite(path, force=False)
    path.touch()
    with pytest.raises(SettingsError, match="--force"):
        files_out.refuse_to_overwrite(path, force=False)
    files_out.refuse_to_overwrite(path, force=True)
    with pytest.raises(SettingsError, match="folder"):
        files_out.refuse_to_overwrite(tmp_path, force=True)
    with pytest.raises(SettingsError, match="no folder"):
        files_out.refuse_to_overwrite(tmp_path / "none" / "x", force=True)


def test_a_packed_file_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        file = files_out.writer(tmp_path / name, Format.JSONL, SCHEMA, packed=True)
        file.write([{"n": 1}, {"n": 2}])
        file.close()
    packed = (tmp_path / "one.jsonl.gz").read_bytes()
    assert packed == (tmp_path / "two.jsonl.gz").read_bytes()
    assert [json.loads(line) for line in gzip.decompress(packed).splitlines()] == [{"n": 1}, {"n": 2}]


def test_rows_go_in_batches_and_none_is_left() -> None:
    sizes = [len(batch) for batch in files_out.batches({"n": n} for n in range(files_out.BATCH_ROWS + 1))]
    assert sizes == [files_out.BATCH_ROWS, 1]
