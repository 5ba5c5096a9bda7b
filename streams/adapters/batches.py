"""Many messages of one partition the fast way at once, into the columns of their table.

Per message there remains what can't be shared: reading its headers, making its struct, the model's own validators.
The values are decoded as one text of lines, times and patterns are looked at in columns. It answers only where it is
certain of all of them: with any doubt about one (`streams.adapters.decoders` says what those are) it gives None, and
each is looked at by itself.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from schemas.envelope import MAX_VALUE_BYTES, SPEC_VERSION, data_schema, type_name
from schemas.messages import Payload
from streams.adapters.columns import Events, table_of
from streams.adapters.decoders import (
    PLAIN_CONTENT,
    WRITTEN,
    Headers,
    Unchecked,
    Underivable,
    derive_unchecked,
    matcher,
    prefixed,
    traceparent_of,
)

FEWEST = 16
"""Fewer are faster one by one."""
_TIME_BYTES = len("2026-11-21T12:00:00.123456Z")
_PUNCTUATION = {4: b"-", 7: b"-", 10: b"T", 13: b":", 16: b":", 19: b".", 26: b"Z"}
_MAX_ID_BYTES = 200
_NAMES = ("ce_id", "ce_source", "ce_time", "ce_subject")


class BatchDecoder:
    """Decodes the events of one topic into rows of `schema`."""

    def __init__(self, payload: type[Payload], schema: pa.Schema) -> None:
        self._schema = schema
        values = (SPEC_VERSION.encode(), type_name(payload).encode(), data_schema(payload).encode(), PLAIN_CONTENT)
        names = (WRITTEN[0], WRITTEN[3], WRITTEN[6], WRITTEN[7])
        self._version, self._type, self._data_schema, self._content = zip(names, values, strict=True)
        self._unchecked = _unchecked(payload)
        self._json = msgspec.json.Decoder(self._unchecked.twin) if self._unchecked else None
        patterns = self._unchecked.patterns if self._unchecked else {}
        self._patterns = [(attrgetter(name), all_matcher(pattern)) for name, pattern in patterns.items()]

    def decode(
        self,
        values: Sequence[bytes | None],
        headers: Sequence[Headers | None],
        offsets: Sequence[int],
        *,
        partition: int,
        ingested_at: datetime,
    ) -> tuple[list[str], pa.Table] | None:
        """The events' ids and rows, in the order given; None where one of them is to be looked at by itself.

        Headers are None where the client can't hand them over.
        """
        if self._json is None or len(values) < FEWEST:
            return None
        try:
            found = self._events(values, headers, offsets)
            if found is None:
                return None
            ids, events = found
            return ids, table_of(self._schema, events, partition=partition, ingested_at=ingested_at)
        except Exception:  # noqa: BLE001 - whatever it is, it is found again one by one, and gets its reason there
            return None

    def _events(
        self, values: Sequence[Any], headers: Sequence[Any], offsets: Sequence[int]
    ) -> tuple[list[str], Events] | None:
        traceparents: Sequence[str | None] = [None] * len(headers)
        if set(map(len, headers)) != {len(WRITTEN)}:
            traceparents = [_traceparent(pairs[len(WRITTEN) :]) for pairs in headers]
            headers = [pairs[: len(WRITTEN)] for pairs in headers]
        envelope, data = self._envelope(headers), self._data(values)
        if envelope is None or data is None:
            return None
        raw_ids, sources, times = envelope
        ids, lengths = b"\n".join(raw_ids).decode().split("\n"), set(map(len, raw_ids))
        if len(ids) != len(values) or not 0 < min(lengths) <= max(lengths) <= _MAX_ID_BYTES:
            return None
        return ids, Events(ids, sources, times, traceparents, offsets, data)

    def _envelope(self, headers: Sequence[Any]) -> tuple[list[bytes], list[bytes], list[bytes]] | None:
        """Ids, sources and times, where all have the headers that `schemas.envelope.encode` writes."""
        version, kind, schema, content = self._version, self._type, self._data_schema, self._content
        ids: list[bytes] = []
        sources: list[bytes] = []
        times: list[bytes] = []
        subjects: list[bytes] = []
        for a, (b, event_id), (c, source), d, (e, time), (f, subject), g, h in headers:
            if a != version or d != kind or g != schema or h != content or (b, c, e, f) != _NAMES:
                return None
            ids.append(event_id)
            sources.append(source)
            times.append(time)
            subjects.append(subject)
        sound = all(sources) and b"".join(subjects).isascii() and _canonical(times)
        return (ids, sources, times) if sound else None

    def _data(self, values: Sequence[Any]) -> list[Any] | None:
        """The payloads, checked.

        Each line is certainly one of the values: none has a line feed, between any two stands `}`, a line feed and `{`,
        and neither an object nor a text goes on like that. So each value is one or more whole objects, and there are
        as many as values.
        """
        assert self._json is not None
        assert self._unchecked is not None
        count, lines = len(values), b"\n".join(values)
        if lines.count(b"\n") != count - 1 or lines.count(b"}\n{") != count - 1:
            return None
        if max(map(len, values)) > MAX_VALUE_BYTES:
            return None
        data: list[Any] = self._json.decode_lines(lines)
        if len(data) != count or not all(fit(list(map(text_of, data))) for text_of, fit in self._patterns):
            return None
        for validate in self._unchecked.validators:
            if list(map(validate, data)) != data:
                return None
        return data


def all_matcher(pattern: str) -> Callable[[Sequence[str | None]], bool]:
    """Whether all of many texts have a pattern of `re`, those that are None apart. For a prefix before so many of some
    characters, without an engine."""
    found, one = prefixed(pattern), matcher(pattern)
    if found is None:
        return lambda texts: all(text is None or one(text) for text in texts)
    prefix, characters, length = found
    others = prefix.translate(None, characters)

    def fit(texts: Sequence[str | None]) -> bool:
        whole = [text for text in texts if text is not None] if None in texts else texts
        joined = "".join(whole).encode()  # type: ignore[arg-type] - none is None
        # Texts of one length, so each byte is at its place; what is left without the characters is the prefixes' own.
        return (
            set(map(len, whole)) <= {length}  # type: ignore[arg-type]
            and all(joined[at::length].count(byte) == len(whole) for at, byte in enumerate(prefix))
            and joined.translate(None, characters) == others * len(whole)
        )

    return fit


def _canonical(times: Sequence[bytes]) -> bool:
    """Whether these can only be times in the form of `Record`, or no times at all: Arrow tells that."""
    joined, count = b"".join(times), len(times)
    return (
        set(map(len, times)) == {_TIME_BYTES}
        and joined[0::_TIME_BYTES].count(b"0") == 0
        and all(joined[at::_TIME_BYTES] == mark * count for at, mark in _PUNCTUATION.items())
    )


def _unchecked(payload: type[Payload]) -> Unchecked | None:
    try:
        return derive_unchecked(payload)
    except Underivable:
        return None


def _traceparent(more: Sequence[Any]) -> str | None:
    """What a ninth header holds, if there is one; raises `ValueError` where there are others."""
    if not more:
        return None
    ((name, raw),) = more
    if name != "traceparent":
        raise ValueError(name)
    return traceparent_of(raw)
