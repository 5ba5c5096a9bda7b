"""Bad input and odd circumstances: clocks that are wrong, huge and tiny batches, poison, messages by the thousand."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas import tables
from schemas.envelope import encode
from schemas.ids import new_response_id
from schemas.topics import FEEDBACK, OUTPUTS
from tests.integration.ingest_fuzz import through_the_broker, through_the_decoders
from tests.integration.streams_kit import Kit, event, feedback, output, until

RESPONSE = "chatcmpl-" + "a" * 32


def test_ten_thousand_mutated_messages_are_each_a_row_a_dead_letter_or_a_repeat(
    fresh_broker: str, tmp_path: Path
) -> None:
    found = through_the_broker(10_000, 7, tmp_path, fresh_broker)
    assert found["messages"] == 10_000
    assert all(found[kind] > 50 for kind in ("row", "dead letter", "repeat"))


def test_both_ways_of_decoding_agree_on_mutated_messages() -> None:
    found = through_the_decoders(10_000, 8)
    assert sum(found.values()) - found["fast way"] - found["at once"] == 10_000
    assert found["fast way"] > 2_000
    assert found["at once"] > 500


def test_events_from_clocks_that_are_wrong_are_kept_as_they_are_and_found_again(
    fresh_broker: str, tmp_path: Path
) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    now = datetime.now(UTC)
    times = {
        "past": datetime(1, 1, 1, tzinfo=UTC),
        "epoch": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        "early": now - timedelta(days=4000),
        "now": now,
        "late": now + timedelta(days=4000),
        "future": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    }
    kit.send(*(event(feedback(RESPONSE, "copy"), id=name, time=time) for name, time in times.items()))
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.FEEDBACK).height == len(times), "the rows", doing=ingest.step)
    ingest._consumer.close()
    table = kit.table(tables.FEEDBACK)
    assert dict(table.all().select("event_id", "event_time").collect().rows()) == times
    assert table.newest_event_ids(1, limit=10) + table.newest_event_ids(0, limit=10) == list(times)
    for moment in times.values():
        assert table.files({"event_time": (moment, moment)}), "statistics hide a row"


def test_a_batch_of_a_megabyte_a_message_and_one_of_a_single_small_one(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    text = "x" * 199_000
    big = [event(output(answer=text, question=text), id=f"big-{n}") for n in range(60)]
    kit.send(*big, event(feedback(RESPONSE, "copy"), id="small"))
    ingest = kit.ingest(batch_bytes=2_000_000, batch_seconds=60.0)
    until(lambda: kit.rows(tables.OUTPUTS).height >= 55, "the big rows, by their bytes", doing=ingest.step)
    assert kit.rows(tables.FEEDBACK).height == 0  # neither its size nor its age is a reason yet
    ingest._consumer.close()


def test_a_partition_full_of_poison_is_put_away_and_the_next_event_is_a_row(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    _, value, headers = encode(event(output()))
    huge = value.replace(b'"response_id"', b'"seed":' + b"9" * 40 + b',"response_id"')
    for n in range(300):
        named = [(k, b"poison-%d" % n if k == "ce_id" else v) for k, v in headers]
        kit.send_raw(OUTPUTS.name, huge if n % 2 else b"{", named, flush=False)
    kit.send_raw(OUTPUTS.name, value, headers)
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.OUTPUTS).height == 1, "the good row", doing=ingest.step)
    ingest._consumer.close()
    letters = kit.rows(tables.DEAD_LETTERS)
    assert dict(letters.group_by("reason").len().rows()) == {"unstorable": 150, "malformed_json": 150}
    assert letters["kafka_offset"].sort().to_list() == list(range(300))


def test_events_of_a_later_release_are_read_for_what_this_one_knows(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    key, value, headers = encode(event(feedback(RESPONSE, "thumbs_up"), id="later"))
    later = value[:-1] + b',"mood":{"joy":[1,2]},"thumb_size":3}'
    named = [(k, b"urn:thumbwheel:schema:feedback:v9" if k == "ce_dataschema" else v) for k, v in headers]
    kit.send_raw(FEEDBACK.name, later, [*named, ("ce_mood", b"new")], key=key)
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.FEEDBACK).height == 1, "the row", doing=ingest.step)
    ingest._consumer.close()
    assert kit.rows(tables.DEAD_LETTERS).height == 0


def test_repeats_in_one_batch_in_two_and_out_of_order_are_one_row_each(fresh_broker: str, tmp_path: Path) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    times = [datetime(2026, 11, 21, 12, tzinfo=UTC) - timedelta(minutes=n) for n in range(3)]
    events = [event(feedback(RESPONSE, "copy"), id=f"e{n}", time=t) for n, t in enumerate(times)]
    ingest = kit.ingest()
    for part in ([events[2], events[0], events[2]], [events[0], events[1], events[1]]):
        kit.send(*part)
        wanted = {e.id for e in part}
        until(lambda w=wanted: w <= set(kit.rows(tables.FEEDBACK)["event_id"]), "the rows", doing=ingest.step)
    ingest._consumer.close()
    assert kit.rows(tables.FEEDBACK).sort("kafka_offset")["event_id"].to_list() == ["e2", "e0", "e1"]
    assert ingest._metrics.duplicates.labels(FEEDBACK.name)._value.get() == 3


@pytest.mark.parametrize("broken", ["bronze/outputs", "bronze/dead_letters"])
@pytest.mark.parametrize("assigned", [True, False])
def test_a_table_that_can_not_be_used_holds_up_no_other(
    fresh_broker: str, tmp_path: Path, broken: str, assigned: bool
) -> None:
    kit = Kit(fresh_broker, tmp_path / "data")
    ingest = kit.ingest()
    if assigned:
        until(lambda: {(OUTPUTS.name, 0), (OUTPUTS.name, 1)} <= ingest.assigned, "the partitions", doing=ingest.step)
    log, aside = kit.data / "lake" / broken / "_delta_log", kit.data / "aside"
    log.rename(aside)
    log.write_text("no folder any more")
    kit.send(event(output(), id="held"), event(feedback(RESPONSE, "copy"), id="free"))
    kit.send_raw(OUTPUTS.name, b"broken", key=b"x")
    until(lambda: kit.rows(tables.FEEDBACK).height == 1, "the row of the other table", doing=ingest.step)
    until(lambda: OUTPUTS.name in ingest._metrics.stalls, "the word that outputs can't be stored", doing=ingest.step)
    log.unlink()
    aside.rename(log)
    until(lambda: kit.rows(tables.OUTPUTS).height == 1, "the row that was held up", doing=ingest.step)
    until(lambda: not ingest._metrics.stalls, "the word that all is well", doing=ingest.step)
    ingest._consumer.close()
    assert kit.rows(tables.DEAD_LETTERS).height == 1


FOREIGN = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class Name(str):
    def encode(self, *_):
        return b"bad\\xff\\xfename"

async def send():
    producer = AIOKafkaProducer(bootstrap_servers=sys.argv[1])
    await producer.start()
    await producer.send_and_wait("thumbwheel.feedback.v1", b"v", b"k", headers=[(Name("x"), b"y")])
    await producer.stop()

asyncio.run(send())
"""


def test_a_header_whose_name_is_no_text_poisons_nothing(fresh_broker: str, tmp_path: Path) -> None:
    """The client can't even hand such headers over: it raises each time it is asked for them."""
    kit = Kit(fresh_broker, tmp_path / "data")
    told = os.environ | {"AIOKAFKA_NO_EXTENSIONS": "1"}
    warm = [event(feedback(RESPONSE, "copy"), id=f"warm-{n}") for n in range(100)]
    kit.send(*warm)  # what runs often is run otherwise by the interpreter, and must be as safe
    subprocess.run([sys.executable, "-c", FOREIGN, kit.bootstrap], env=told, check=True, timeout=60)
    good = feedback(new_response_id(), "thumbs_up")
    kit.send(event(good))
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.FEEDBACK).height == 101, "the good event", doing=ingest.step)
    until(lambda: kit.rows(tables.DEAD_LETTERS).height == 1, "the dead letter", doing=ingest.step)
    (dead,) = kit.rows(tables.DEAD_LETTERS).to_dicts()
    assert (dead["reason"], dead["key"], dead["value"]) == ("header_name", b"k", b"v")
    ingest._consumer.close()
