import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.lake import sources
from infra.local.comparisons import BadRow
from schemas.errors import SettingsError


def read(path: Path) -> list[tuple[int, dict[str, Any] | str]]:
    with sources.opened(path) as source:
        found = [(number, str(row) if isinstance(row, BadRow) else row) for number, row in source.rows]
        assert source.done() == source.total
    return found


def test_bad_lines_are_told_by_number_and_the_next_ones_come(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n[1]\n{broken\n\xff\n{"a": 2}')
    found = read(path)
    assert found[0] == (1, {"a": 1})
    assert [number for number, row in found if isinstance(row, str)] == [3, 4, 5]
    assert found[-1] == (6, {"a": 2})


def test_a_line_without_end_is_a_bad_row_and_not_a_full_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 100)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 1000 + b'"}\n{"a": 2}\n' + b"y" * 250)
    assert [number for number, _ in read(path)] == [1, 2, 3]
    assert read(path)[1] == (2, {"a": 2})


def test_the_same_rows_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"prompt": "é\n?", "label": "up"}, {"prompt": "b", "label": "down"}]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "a.csv").write_text('prompt,label\n"é\n?",up\nb,down\n', encoding="utf-8-sig")
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress('prompt\tlabel\n"é\n?"\tup\nb\tdown\n'.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert [row for _, row in read(path)] == rows, path.name


def test_rows_of_csv_that_do_not_fit_their_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n1\n1,2,3\n\xff,2\n3,4\n")
    found = read(path)
    assert [(number, row) for number, row in found if isinstance(row, str)] == [
        (3, "fewer columns than the header has"),
        (4, "more columns than the header has"),
    ]
    assert found[-1] == (6, {"a": "3", "b": "4"})


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", b"[{]", "is not JSON"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], "broken gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:12] + b"\xff" * 40, "broken gzip"),
        ("a.parquet", b"PAR1 is not all that it takes", "no parquet file"),
    ],
)
def test_a_file_that_is_broken_as_a_whole_is_said(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=why):
        read(tmp_path / name)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".jsonl", ".csv", ".tsv", ".json", ".gz"]))
def test_any_bytes_are_rows_or_bad_rows_or_a_file_that_can_not_be_read(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    try:
        found = read(path)
    except SettingsError:
        return
    assert all(number >= 1 for number, _ in found)
