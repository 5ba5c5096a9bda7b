import hashlib
from datetime import UTC, datetime

from infra.lake.content import content_hash, plain


def test_the_hash_is_that_of_the_sorted_digests_of_canonical_rows() -> None:
    rows = [b'{"a":1,"b":"\xc3\xa9"}', b'{"a":0,"b":null}']
    digests = sorted(hashlib.sha256(row).digest() for row in rows)
    assert content_hash([{"b": "é", "a": 1}, {"a": 0, "b": None}]) == hashlib.sha256(b"".join(digests)).hexdigest()


def test_neither_the_order_of_rows_nor_that_of_columns_matters() -> None:
    assert content_hash([{"a": 1, "b": 2}, {"a": 3, "b": 4}]) == content_hash([{"b": 4, "a": 3}, {"b": 2, "a": 1}])


def test_a_row_twice_is_not_a_row_once() -> None:
    assert content_hash([{"a": 1}, {"a": 1}]) != content_hash([{"a": 1}])


def test_times_and_bytes_are_written_as_json_can_hold_them() -> None:
    moment = datetime(2026, 11, 21, 12, 0, 0, 5000, tzinfo=UTC)
    assert plain({"t": moment, "b": [b"\xff"]}) == {"t": "2026-11-21T12:00:00.005000Z", "b": ["/w=="]}
