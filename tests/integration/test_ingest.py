"""Bronze on a real broker: every good event once, every bad one a dead letter, whatever is killed."""

import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from infra.local.broker import EmbeddedBroker
from infra.local.topics import create_topics
from schemas import tables, topics
from schemas.connection import KafkaConnection
from schemas.envelope import encode
from schemas.topics import FEEDBACK, OUTPUTS
from tests.integration.streams_kit import Kit, event, feedback, output, stop, until


def test_bad_messages_become_dead_letters_and_good_ones_beside_them_rows(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    good = [event(output(f"question {n}")) for n in range(40)]
    _, value, headers = encode(good[0])
    nan = value.replace(b'"latency_seconds":0.1', b'"latency_seconds":NaN')
    huge_seed = value.replace(b'"response_id"', b'"seed":' + b"9" * 40 + b',"response_id"')
    other_id = [(n, b"another" if n == "ce_id" else v) for n, v in headers]
    bad = [
        ("malformed_json", b"{not json", headers),
        ("malformed_json", b"\xff\xfe", headers),
        ("empty_value", b"", headers),
        ("empty_value", None, headers),
        ("missing_attribute", value, []),
        ("not_utf8", value, [*headers, ("x-odd", b"\xff")]),
        ("wrong_type", value, [(n, b"thumbwheel.feedback.v1" if n == "ce_type" else v) for n, v in headers]),
        ("bad_time", value, [(n, b"yesterday" if n == "ce_time" else v) for n, v in headers]),
        ("spec_version", value, [(n, b"9.9" if n == "ce_specversion" else v) for n, v in headers]),
        ("invalid_payload", b'{"response_id": 7}', headers),
        ("invalid_payload", nan, other_id),
        ("unstorable", huge_seed, other_id),
        ("oversize", b" " * 1_000_001, headers),
    ]
    for n, good_one in enumerate(good):
        kit.send(good_one)
        if n < len(bad):
            kit.send_raw(OUTPUTS.name, bad[n][1], bad[n][2], key=good_one.data.response_id.encode())
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.OUTPUTS).height >= len(good), "all good rows", doing=ingest.step)
    until(lambda: kit.rows(tables.DEAD_LETTERS).height >= len(bad), "all dead letters", doing=ingest.step)
    ingest._consumer.close()

    assert sorted(kit.rows(tables.OUTPUTS)["event_id"]) == sorted(e.id for e in good)
    letters = kit.rows(tables.DEAD_LETTERS)
    assert Counter(letters["reason"].to_list()) == Counter(reason for reason, _, _ in bad)
    assert {v for v in letters["value"].to_list() if v} == {v for _, v, _ in bad if v}
    told = {h["reason"] for h in map(_errors, kit.read(OUTPUTS.dlq))}
    assert told == {reason for reason, _, _ in bad}


def _errors(message: object) -> dict[str, str]:
    pairs = message.headers() or []  # type: ignore[attr-defined]
    prefix = "thumbwheel_error_"
    return {n.removeprefix(prefix): v.decode() for n, v in pairs if n.startswith(prefix)}


def test_the_dead_letter_topic_holds_the_bytes_as_they_came(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    kit.send_raw(FEEDBACK.name, b'{"broken', [("mine", b"\x00\xff")], key=b"some key")
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.DEAD_LETTERS).height == 1, "the dead letter", doing=ingest.step)
    ingest._consumer.close()
    (message,) = kit.read(FEEDBACK.dlq)
    assert (message.key(), message.value()) == (b"some key", b'{"broken')
    assert message.headers()[0] == ("mine", b"\x00\xff")
    told = _errors(message)
    assert (told["topic"], told["offset"], told["reason"]) == (FEEDBACK.name, "0", "not_utf8")
    assert {"partition", "detail", "time"} <= told.keys()


def test_a_structured_event_is_read_as_well(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    said = event(feedback("chatcmpl-" + "a" * 32, "thumbs_up"))
    whole = {
        "specversion": "1.0",
        "id": said.id,
        "source": said.source,
        "type": FEEDBACK.name,
        "time": said.time.isoformat(),
        "data": said.data.model_dump(mode="json"),
    }
    kit.send_raw(FEEDBACK.name, json.dumps(whole).encode(), [("content-type", b"application/CloudEvents+json")])
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.FEEDBACK).height == 1, "the row", doing=ingest.step)
    ingest._consumer.close()
    row = kit.rows(tables.FEEDBACK).to_dicts()[0]
    assert (row["event_id"], row["kind"], row["user_id"]) == (said.id, "thumbs_up", "ann")


def test_an_event_that_comes_again_is_one_row_even_after_a_restart(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    once, last = event(output(), id="once"), event(output(), id="last")
    again = event(once.data, id="once")
    kit.send(once, again)
    first = kit.ingest()
    until(lambda: kit.rows(tables.OUTPUTS).height > 0, "the first row", doing=first.step)
    first._consumer.close()
    kit.send(again, last)
    second = kit.ingest()
    until(lambda: "last" in kit.rows(tables.OUTPUTS)["event_id"].to_list(), "the last row", doing=second.step)
    second._consumer.close()
    assert sorted(kit.rows(tables.OUTPUTS)["event_id"]) == ["last", "once"]


def test_two_workers_that_both_believe_they_own_a_partition_double_nothing(fresh_broker: str, tmp_path: Path) -> None:
    """A zombie: another group stands for a worker that was cut off and does not know that it lost its partitions."""
    kit = Kit(fresh_broker, tmp_path / "data")
    events = [event(output(f"question {n}")) for n in range(200)]
    owner, zombie = kit.ingest(), kit.ingest(group="zombie", instance_id="zombie")

    def both() -> None:
        zombie.step()
        owner.step()

    for part in (events[:100], events[100:]):
        kit.send(*part)
        wanted = {e.id for e in part}
        until(lambda w=wanted: w <= set(kit.rows(tables.OUTPUTS)["event_id"].to_list()), "rows of both", doing=both)
    owner._consumer.close()
    zombie._consumer.close()
    assert sorted(kit.rows(tables.OUTPUTS)["event_id"]) == sorted(e.id for e in events)


def test_kill_9_in_mid_stream_loses_and_doubles_nothing(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    sent = [event(output(f"question {n}")) for n in range(3000)]
    bad = 60

    def feed() -> None:
        for n, one in enumerate(sent):
            key, value, headers = encode(one)
            kit.send_raw(OUTPUTS.name, value, headers, key=key, flush=False)
            if n % 50 == 0:
                kit.send_raw(OUTPUTS.name, b"broken %d" % n, key=key)
                time.sleep(0.15)
        kit.flush()

    feeder = threading.Thread(target=feed)
    feeder.start()
    for wanted in (1, 600, 1500):
        process = kit.start("ingest")
        try:
            until(lambda w=wanted: kit.rows(tables.OUTPUTS).height >= w, f"{wanted} rows before a kill")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    feeder.join()
    process = kit.start("ingest")
    sent.append(event(output("the last question")))
    kit.send(sent[-1])
    until(lambda: kit.rows(tables.OUTPUTS).height >= len(sent), "every row")
    until(lambda: kit.rows(tables.DEAD_LETTERS).height >= bad, "every dead letter")
    assert stop(process) == 0
    assert sorted(kit.rows(tables.OUTPUTS)["event_id"]) == sorted(e.id for e in sent)
    letters = kit.rows(tables.DEAD_LETTERS)
    assert (letters.height, letters["dead_letter_id"].n_unique()) == (bad, bad)


def test_ingest_waits_for_a_broker_that_is_down_and_goes_on(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker" / "data").start()
    try:
        create_topics(KafkaConnection(bootstrap_servers=broker.bootstrap_servers))
        kit = Kit(broker.bootstrap_servers, tmp_path / "data")
        before, after = event(output(), id="before"), event(output(), id="after")
        kit.send(before)
        broker.stop()
        process = kit.start("ingest")
        until(lambda: (kit.data / "lake" / tables.AUDIT.path).is_dir(), "the program's start")
        broker.start()
        until(lambda: kit.rows(tables.OUTPUTS).height == 1, "the row from before")
        broker.stop()
        broker.start()
        kit.send(after)
        until(lambda: kit.rows(tables.OUTPUTS).height == 2, "the row from after")
        assert stop(process) == 0
    finally:
        broker.stop()


def test_every_topic_with_a_table_is_taken(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    ingest = kit.ingest()
    ingest.step()
    ingest._consumer.close()
    assert set(tables.BY_TOPIC) == {t.name for t in topics.ALL if t.table}
    assert all(kit.table(table).version == 0 for table in tables.BY_TOPIC.values())
