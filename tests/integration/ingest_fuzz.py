"""Mutated messages by the million: each becomes exactly one row or one dead letter, repeats by event id none.

python -m tests.integration.ingest_fuzz --messages 1000000            through the decoders and the columns
python -m tests.integration.ingest_fuzz --messages 100000 --broker    through a broker, ingest and Delta as well

A message is a real event of `outputs` or `feedback`, changed in none, one or several ways: its bytes, a field, a
header, its mode, its id. The count is held to the last message, and both ways of decoding to one verdict.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas import tables, topics
from schemas.consent import Purpose
from schemas.envelope import encode, new_event
from schemas.errors import InvalidEvent
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id, new_traceparent
from schemas.labels import Candidate, Label, Verdict
from schemas.messages import ChatMessage, Payload
from schemas.outputs import Output
from streams.adapters.batches import FEWEST, BatchDecoder
from streams.adapters.columns import UNSTORABLE, event_table
from streams.adapters.decoders import WRITTEN, Decoder, Record, headers_of
from streams.adapters.lake import arrow_schema

KINDS: tuple[type[Payload], ...] = (Output, Feedback, Label)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
WORDS = ("hello", "", " ", "ß€", "\u2028", "🙂", "a" * 300, "\x00", "e\u0301", "\ufeff", '"\\', "null")
TOGETHER = 24
Message = tuple[bytes | None, list[tuple[str, bytes | None]]]


def sample(kind: type[Payload], rng: random.Random | None = None) -> Any:
    """A valid payload; without a source of chance a plain one."""
    rng = rng or random.Random(0)
    prompt = tuple(
        ChatMessage(role=rng.choice(("system", "user")), content=rng.choice(WORDS)) for _ in range(rng.randint(1, 3))
    )
    if kind is Feedback:
        said = rng.choice(list(FeedbackKind))
        purposes = rng.choice((None, (), (Purpose.TRAINING,)))
        return Feedback(
            response_id=new_response_id(), kind=said, text="x" + rng.choice(WORDS), user_id="ann", purposes=purposes
        )
    if kind is Label:
        return Label(
            task_id="task",
            labeler_id="bo",
            verdict=rng.choice(list(Verdict)),
            prompt_id="prompt",
            prompt=prompt,
            left=Candidate(completion=rng.choice(WORDS), version=rng.choice((None, "v1"))),
            right=Candidate(completion="right"),
            reasons=tuple(rng.choices(WORDS, k=rng.randint(0, 2))),
            seconds_taken=1.5,
        )
    return Output(
        response_id=new_response_id(), prompt_id="prompt", prompt=prompt, completion=rng.choice(WORDS), version="v1",
        base_model="tiny", temperature=rng.random(), max_completion_tokens=20, finish_reason="stop",
        seed=rng.choice((None, 7, 2**63 - 1, -(2**63))), input_tokens=4, output_tokens=6, latency_seconds=rng.random(),
    )  # fmt: skip


def hostile_values() -> tuple[bytes, ...]:
    """JSON, or nearly, that two decoders might see differently."""
    return (
        b"null",
        b"true",
        b"false",
        b"0",
        b"-0",
        b"1",
        b"-1",
        b"1.0",
        b"5e0",
        b"1e999",
        b"-1e999",
        b"1e-999",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"0x1",
        b"9" * 19,
        b"9" * 40,
        b"-" + b"9" * 40,
        b"1" * 5000,
        b"9223372036854775808",
        b"-9223372036854775809",
        b"18446744073709551616",
        b"0.1",
        b"1e5",
        b'""',
        b'"5"',
        b'"1.5"',
        b'"true"',
        b'"NaN"',
        b'"\\ud800"',
        b'"\\ud83d\\ude42"',
        b'"\\udc00\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\\u0000"',
        b'"a\nb"',
        b'"\x00"',
        b'"\\q"',
        b'"\x7f"',
        b'"open',
        b"[]",
        b"[null]",
        b"[[]]",
        b"{}",
        b'{"a":1,"a":2}',
        b'{"a":1,}',
        b"[1,]",
        b"[" * 500 + b"]" * 500,
        b'"chatcmpl-' + b"a" * 32 + b'"',
        b'"chatcmpl-' + b"a" * 32 + b'\\n"',
        b'"comment"',
        b'"COMMENT"',
        b'" comment"',
        b'"left"',
        b'"training"',
        b'["training"]',
        b'["training","training"]',
        b'["other"]',
        b'[{"role":"user","content":"a"}]',
        b'[{"role":"user","content":"a","x":"\\ud800"}]',
        b'[{"role":"robot","content":"a"}]',
        b'{"completion":"a"}',
        b'{"completion":"a","version":""}',
        b'"' + b"z" * 201 + b'"',
        b'"' + "é".encode() * 200 + b'"',
        b'"' + "🙂".encode() * 200 + b'"',
        b'"' + b"t" * 200_001 + b'"',
        b"/**/1",
        b"'a'",
        b"",
        b'"2026-11-21T12:00:00Z"',
        b"1795262400",
        b"[" + b"1," * 250 + b"1]",
    )


_SMALL = tuple(value for value in hostile_values() if len(value) < 10_000)


class Mutator:
    """Makes messages of events and breaks some; the same seed makes the same changes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._ids: list[str] = []

    def message(self, payload: Payload) -> Message:
        """A message of this payload, changed in up to three ways."""
        rng = self.random
        trace = new_traceparent() if rng.random() < 0.3 else None
        event = new_event(payload, source="fuzz", id=self._id(), traceparent=trace)
        _, value, headers = encode(event)
        made: Message = (value, [*headers])
        if rng.random() < 0.1:
            made = _structured(made)
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            made = rng.choice(_MUTATIONS)(rng, made)
        return made

    def _id(self) -> str | None:
        """None for a fresh one; one in twenty is an id that was there before."""
        if self._ids and self.random.random() < 0.05:
            return self.random.choice(self._ids)
        if self.random.random() < 0.05:
            self._ids = [*self._ids[-50:], f"again-{self.random.random()}"]
            return self._ids[-1]
        return None


def _structured(message: Message) -> Message:
    value, headers = message
    attributes = {n.removeprefix("ce_"): (v or b"").decode() for n, v in headers if n != "content-type"}
    whole = {**attributes, "data": json.loads(value or b"null")}
    return json.dumps(whole).encode(), [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def _flip(rng: random.Random, message: Message) -> Message:
    value, headers = message
    raw = bytearray(value or b"")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(raw) + 1)
        raw[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
    return bytes(raw), headers


def _cut(rng: random.Random, message: Message) -> Message:
    value, headers = message
    return (value or b"")[: rng.randrange(len(value or b"") + 1)], headers


def _set_field(rng: random.Random, message: Message) -> Message:
    """Another value for a field, or one more field; where the value is no object any more, it stays."""
    value, headers = message
    try:
        fields = json.loads(value or b"")
        names = [*fields, "unheard_of"]
    except (ValueError, TypeError, RecursionError):
        return message
    if not isinstance(fields, dict):
        return message
    name, raw = rng.choice(names), rng.choice(_SMALL)
    kept = b",".join(json.dumps({k: v})[1:-1].encode() for k, v in fields.items() if k != name or rng.random() < 0.3)
    parts = [p for p in (kept, json.dumps(name).encode() + b":" + raw) if p]
    rng.shuffle(parts)
    return b"{" + b",".join(parts) + b"}", headers


def _drop_field(rng: random.Random, message: Message) -> Message:
    value, headers = message
    try:
        fields = json.loads(value or b"")
        fields.pop(rng.choice(list(fields)))
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return message
    return json.dumps(fields, ensure_ascii=rng.random() < 0.5).encode(errors="replace"), headers


def _replace(rng: random.Random, message: Message) -> Message:
    big = b" " * 1_000_001 if rng.random() < 0.01 else b"x"
    whole = (None, b"", b"null", b"[]", b"{}", b"\xef\xbb\xbf{}", b"{" * 3000, b"\x00", rng.randbytes(40), big)
    return rng.choice(whole), message[1]


def _space(rng: random.Random, message: Message) -> Message:
    space = rng.choice((b" ", b"\n", b"\t\r\n", b"\x0c", b"\x00", b"\xc2\xa0"))
    return (space + (message[0] or b"")) if rng.random() < 0.5 else ((message[0] or b"") + space), message[1]


_HEADER_VALUES: tuple[bytes | None, ...] = (
    None, b"", b"x", b"\xff", "é".encode(), b"1.0", b"2026-11-21T12:00:00Z", b"0001-01-01T00:00:00+14:00",
    b"9999-12-31T23:59:59.999999Z", b"2026-W47-6T12:00:00.123456Z", b"i" * 201, b"application/cloudevents",
    b"application/json; charset=utf-8", b"thumbwheel.feedback.v1", b"thumbwheel.outputs.v1", b"00-" + b"a" * 52,
)  # fmt: skip
_HEADER_NAMES = (
    "id",
    "time",
    "CE_ID",
    "Ce_Time",
    "tracestate",
    "x-odd",
    "ce_x",
    "é",
    "",
    "ce_",
    "ce_data",
    "ce_traceparent",
)


def _set_header(rng: random.Random, message: Message) -> Message:
    value, headers = message
    names = [n for n, _ in headers] + list(_HEADER_NAMES)
    name, raw = rng.choice(names), rng.choice(_HEADER_VALUES)
    kept = [(n, v) for n, v in headers if n != name or rng.random() < 0.3]
    kept.insert(rng.randrange(len(kept) + 1), (name, raw))
    return value, kept


def _drop_header(rng: random.Random, message: Message) -> Message:
    value, headers = message
    gone = rng.randrange(len(headers)) if headers else 0
    return value, headers[:gone] + headers[gone + 1 :]


def _shuffle(rng: random.Random, message: Message) -> Message:
    headers = list(message[1])
    rng.shuffle(headers)
    return message[0], headers


_MUTATIONS: tuple[Callable[[random.Random, Message], Message], ...] = (
    _flip,
    _cut,
    _set_field,
    _set_field,
    _set_field,
    _drop_field,
    _replace,
    _space,
    _set_header,
    _set_header,
    _drop_header,
    _shuffle,
)


def messages(count: int, seed: int) -> Iterator[tuple[str, bytes, Message]]:
    """Topic, key and message, `count` times."""
    mutator = Mutator(seed)
    kinds = (Output, Feedback)
    for _ in range(count):
        kind = mutator.random.choice(kinds)
        key = mutator.random.choice((b"a", b"b", b"c", b"", mutator.random.randbytes(8)))
        yield f"thumbwheel.{kind.schema_name}.v1", key, mutator.message(sample(kind, mutator.random))


class Together:
    """The messages of one topic that go the fast way, many at once: as rows they are what each is by itself, and with
    one among them that is refused they are left to the other way."""

    def __init__(self, table: tables.Table) -> None:
        assert table.topic is not None
        self._schema = arrow_schema(table)
        self._decoder = BatchDecoder(table.topic.payload, self._schema)
        self._messages: list[Message] = []
        self._records: list[Record] = []

    def accept(self, message: Message, record: Record) -> int:
        """One more, where its headers stand as we write them; how many went at once with it."""
        if [name for name, _ in message[1]][: len(WRITTEN)] != [*WRITTEN]:
            return 0
        self._messages.append(message)
        self._records.append(record)
        if len(self._messages) < TOGETHER:
            return 0
        rows, records, self._messages, self._records = self._decoded(self._messages), self._records, [], []
        if rows is None:
            return 0
        assert rows.equals(event_table(self._schema, records, partition=0, ingested_at=NOON)), "read as something else"
        return len(records)

    def refuse(self, message: Message) -> None:
        """One that is no event, among those that wait: it must be seen."""
        if len(self._messages) >= FEWEST:
            half = len(self._messages) // 2
            mixed = [*self._messages[:half], message, *self._messages[half:]]
            assert self._decoded(mixed) is None, f"accepted in a batch: {message!r}"

    def _decoded(self, messages: list[Message]) -> pa.Table | None:
        values, headers = [value for value, _ in messages], [pairs for _, pairs in messages]
        offsets = [record.offset for record in self._records]
        offsets += [0] * (len(messages) - len(offsets))
        found = self._decoder.decode(values, headers, offsets, partition=0, ingested_at=NOON)
        return None if found is None else found[1]


def through_the_decoders(count: int, seed: int, *, batch: int = 2_000) -> Counter[str]:
    """Every message to a row or a reason; raises AssertionError where the two ways disagree."""
    decoders = {t.name: Decoder(t.payload) for t in (topics.OUTPUTS, topics.FEEDBACK)}
    schemas = {name: arrow_schema(tables.BY_TOPIC[name]) for name in decoders}
    together = {name: Together(tables.BY_TOPIC[name]) for name in decoders}
    found: Counter[str] = Counter()
    fast: dict[str, list[Record]] = {name: [] for name in decoders}
    slow: dict[str, list[Record]] = {name: [] for name in decoders}
    for number, (topic, _, (value, headers)) in enumerate(messages(count, seed)):
        quick = decoders[topic].fast(value, headers, number)
        found["fast way"] += quick is not None
        try:
            sure = decoders[topic].slow(value, headers_of(headers), number)
        except InvalidEvent as error:
            assert quick is None, f"accepted by the fast way alone: {value!r} {headers!r}"
            together[topic].refuse((value, headers))
            found[error.reason] += 1
            continue
        if quick is not None:
            found["at once"] += together[topic].accept((value, headers), sure)
        slow[topic].append(sure)
        fast[topic].append(quick or sure)
        if len(slow[topic]) >= batch:
            found += _rows(schemas[topic], fast[topic], slow[topic])
            fast[topic], slow[topic] = [], []
    for topic in decoders:
        found += _rows(schemas[topic], fast[topic], slow[topic])
    return found


def _rows(schema: pa.Schema, fast: list[Record], slow: list[Record]) -> Counter[str]:
    """As rows, compared; where some value fits no column, one by one."""
    try:
        made, meant = (event_table(schema, records, partition=0, ingested_at=NOON) for records in (fast, slow))
    except UNSTORABLE:
        if len(fast) == 1:
            return Counter(unstorable=1)
        half = len(fast) // 2
        return _rows(schema, fast[:half], slow[:half]) + _rows(schema, fast[half:], slow[half:])
    assert made.equals(meant), "the two ways read something else in a message"
    return Counter(row=len(fast))


def through_the_broker(count: int, seed: int, folder: Path, bootstrap: str) -> Counter[str]:
    """The same messages through the log into Delta; raises AssertionError where the counts don't add up."""
    from tests.integration.streams_kit import Kit, until

    kit = Kit(bootstrap, folder / "data")
    for topic, key, (value, headers) in messages(count, seed):
        kit.send_raw(topic, value, headers, key=key, flush=False)
    kit.flush()
    sent = {t.name: kit.read(t.name) for t in (topics.OUTPUTS, topics.FEEDBACK)}
    ingest = kit.ingest(batch_seconds=0.5)
    ends = {(t, m.partition()): 0 for t, found in sent.items() for m in found}
    for topic, found in sent.items():
        for message in found:
            ends[topic, message.partition()] = max(ends[topic, message.partition()], (message.offset() or 0) + 1)

    def stored() -> bool:
        opened = {t.name: kit.table(tables.BY_TOPIC[t.name]) for t in (topics.OUTPUTS, topics.FEEDBACK)}
        return all(opened[t].position(f"ingest/{t}/{p}") == end for (t, p), end in ends.items())

    def work() -> None:
        for _ in range(20):
            ingest.step()

    until(stored, "every message", doing=work, patience=600 + count / 500)
    ingest._consumer.close()
    found = Counter[str](messages=sum(map(len, sent.values())))
    for topic, log in sent.items():
        found += _reconciled(kit, topic, log)
    assert found["messages"] == found["row"] + found["dead letter"] + found["repeat"], found
    return found


def _reconciled(kit: Any, topic: str, log: list[Any]) -> Counter[str]:
    """Each message of a topic is a row, a dead letter, or a repeat of a row: one of the three."""
    rows = kit.rows(tables.BY_TOPIC[topic]).select("kafka_partition", "kafka_offset", "event_id").rows()
    letters = kit.rows(tables.DEAD_LETTERS).select("topic", "kafka_partition", "kafka_offset").rows()
    stored = {(p, o) for p, o, _ in rows}
    dead = {(p, o) for t, p, o in letters if t == topic}
    assert len(stored) == len(rows), "a message is two rows"
    assert len(dead) == sum(t == topic for t, _, _ in letters), "a message is two dead letters"
    assert not stored & dead, "a message is a row and a dead letter"
    ids = Counter((p, i) for p, _, i in rows)
    assert max(ids.values(), default=1) == 1, "an event is two rows"
    decoder = Decoder(tables.BY_TOPIC[topic].topic.payload)  # type: ignore[union-attr]
    repeats = 0
    for message in log:
        place = (message.partition(), message.offset())
        if place not in stored and place not in dead:
            event = decoder.decode(message.value(), message.headers() or (), message.offset())
            assert ids[message.partition(), event.id] == 1, f"lost: {topic} {place}"
            repeats += 1
    return Counter({"row": len(stored), "dead letter": len(dead), "repeat": repeats})


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.ingest_fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broker", action="store_true", help="through an embedded broker, ingest and Delta")
    chosen = parser.parse_args()
    began = time.monotonic()
    if chosen.broker:
        from infra.local.broker import EmbeddedBroker
        from infra.local.topics import create_topics
        from schemas.connection import KafkaConnection

        with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "broker" / "data") as broker:
            create_topics(KafkaConnection(bootstrap_servers=broker.bootstrap_servers))
            found = through_the_broker(chosen.messages, chosen.seed, Path(folder), broker.bootstrap_servers)
    else:
        found = through_the_decoders(chosen.messages, chosen.seed)
        assert sum(found.values()) - found["fast way"] - found["at once"] == chosen.messages, found
    for name, number in found.most_common():
        print(f"{number:>10,}  {name}")  # noqa: T201 - a command line
    print(f"every one of {chosen.messages:,} messages accounted for, in {time.monotonic() - began:.0f} s")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
