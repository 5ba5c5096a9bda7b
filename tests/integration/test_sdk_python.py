"""The SDK in host applications that are killed, and its way over a real broker."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.sdk_python.conftest import SDK  # before the SDK: it puts it on the path

# isort: split
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas.envelope import Event, decode
from schemas.feedback import Feedback
from schemas.outputs import Output
from schemas.topics import FEEDBACK, OUTPUTS, Topic
from tests.unit.sdk_python.small_gateway import CLOSE, LOST, SmallGateway, status
from thumbwheel_client import AsyncThumbwheel, Backoff, Thumbwheel

PATIENCE = 60.0
HOST = """
import sys
from thumbwheel_client import Thumbwheel, Backoff
url, spool, name, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tw = Thumbwheel(url, spool=spool, backoff=Backoff(first=0.001, longest=0.01))
for n in range(count):
    tw.comment("chatcmpl-" + "0" * 32, f"{name}/{n}")
    sys.stdout.write(f"{name}/{n}\\n")  # said only when the call has returned
    sys.stdout.flush()
{last}
"""


@dataclass
class Host:
    """A host application, and the file in which it notes each call that has returned."""

    process: "subprocess.Popen[str]"
    notes: Path

    def said(self) -> list[str]:
        return self.notes.read_text().split("\n")[:-1]  # what was being written when it was killed is no note

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self) -> str:
        """Wait for its end; what it had to complain of."""
        errors = self.process.communicate(timeout=PATIENCE)[1]
        assert self.process.returncode == 0, errors
        return errors


def host(url: str, spool: Path, name: str, count: int, last: str = "") -> Host:
    environment = dict(os.environ) | {"PYTHONPATH": f"{SDK / 'python'}"}
    arguments = [sys.executable, "-c", HOST.replace("{last}", last), url, str(spool), name, str(count)]
    notes, pipe = spool.parent / f"{name}.notes", subprocess.PIPE
    with notes.open("w") as out:
        process = subprocess.Popen(arguments, env=environment, stdin=pipe, stdout=out, stderr=pipe, text=True)
    return Host(process, notes)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def test_hosts_killed_in_a_burst_lose_nothing_that_a_call_took_and_double_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    spool = tmp_path / "spool"
    with SmallGateway() as gateway:
        for round_ in range(4):
            gateway.faults.extend([status(503), CLOSE, LOST, status(429)] * 5)
            hosts = [host(gateway.url, spool, f"{round_}.{n}", 1_000_000) for n in range(2)]
            for one in hosts:
                eventually(lambda one=one: len(one.said()) > 40 + 25 * round_)  # noqa: B023
            for one in hosts:
                one.kill()
                said += one.said()
        with Thumbwheel(gateway.url, spool=spool, backoff=Backoff(first=0.001, longest=0.01)) as last:
            assert last.flush(PATIENCE)
        texts = gateway.texts()
    assert set(said) <= set(texts)
    assert len(texts) == len(set(texts))
    for name in {text.split("/")[0] for text in texts}:
        numbers = [int(text.split("/")[1]) for text in texts if text.startswith(f"{name}/")]
        assert numbers == list(range(len(numbers)))  # in order, and none missing
    assert list(spool.iterdir()) == []


def test_a_host_that_just_ends_sends_the_rest_on_its_way_out(tmp_path: Path) -> None:
    with SmallGateway() as gateway:
        assert host(gateway.url, tmp_path / "spool", "x", 300).end() == ""
        assert gateway.texts() == [f"x/{n}" for n in range(300)]


def test_a_host_that_ends_while_thumbwheel_is_down_leaves_it_to_the_next_start(tmp_path: Path) -> None:
    with SmallGateway() as gone:
        dead = gone.url
    assert "Traceback" not in host(dead, tmp_path / "spool", "x", 50, last="tw.flush(0.2)").end()
    with SmallGateway() as gateway, Thumbwheel(gateway.url, spool=tmp_path / "spool") as tw:
        assert tw.flush(PATIENCE)
        assert gateway.texts() == [f"x/{n}" for n in range(50)]


def test_a_living_sibling_takes_over_what_a_killed_one_has_left(tmp_path: Path) -> None:
    with SmallGateway() as gone:
        dead = gone.url
    one = host(dead, tmp_path / "spool", "x", 10, last="sys.stdin.read()")
    eventually(lambda: len(one.said()) == 10)
    with SmallGateway() as gateway, Thumbwheel(gateway.url, spool=tmp_path / "spool") as tw:
        assert tw.stats.waiting == 0
        one.kill()
        assert tw._outbox.adopt()  # as the courier does whenever it has had nothing to do for a while
        assert tw.flush(PATIENCE)
        assert gateway.texts() == [f"x/{n}" for n in range(10)]


def read_all(bootstrap: str, topic: Topic, wanted: Callable[[Event[Any]], bool], count: int) -> list[Event[Any]]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic.name, n, OFFSET_BEGINNING) for n in range(topic.partitions)])
    found: list[Event[Any]] = []
    deadline = time.monotonic() + PATIENCE
    try:
        while len(found) < count and time.monotonic() < deadline:
            first = consumer.poll(0.2)
            for message in () if first is None else (first, *consumer.consume(499, timeout=0)):
                if message.error() is None:
                    event = decode(topic.payload, message.value(), message.headers() or [])  # type: ignore[arg-type]
                    found += [event] if wanted(event) else []
    finally:
        consumer.close()
    return found


def test_the_same_calls_go_straight_to_kafka_without_personal_data(broker: str, tmp_path: Path) -> None:
    with Thumbwheel.over_kafka(broker, spool=tmp_path / "spool", purposes=["training"]) as tw:
        record = tw.record([{"role": "user", "content": "I am ann@example.org"}], "Hello", model="m-1", user="u1")
        assert record.response_id is not None
        thumb = tw.thumbs_up(record.response_id, user="ann@example.org")
        words = tw.correct(record.response_id, "Hello ann@example.org", user="u1")
        assert tw.flush(PATIENCE)
        assert [receipt.recorded for receipt in (record, thumb, words)] == [True, True, True]
    mine = record.response_id
    [output] = read_all(broker, OUTPUTS, lambda event: event.data.response_id == mine, 1)
    assert isinstance(output.data, Output)
    assert output.data.prompt[0].content == "I am [EMAIL_1]"
    said = read_all(broker, FEEDBACK, lambda event: event.data.response_id == mine, 2)
    data = [event.data for event in said]
    assert all(isinstance(one, Feedback) for one in data)
    assert [(one.kind.value, one.text, one.user_id) for one in data] == [
        ("thumbs_up", None, None),
        ("correction", "Hello [EMAIL_1]", "u1"),
    ]
    assert [tuple(one.purposes) for one in data] == [("training",)] * 2
    assert [event.id for event in said] == [thumb.id, words.id]
    assert list((tmp_path / "spool").iterdir()) == []


async def test_the_asynchronous_client_goes_straight_to_kafka_too(broker: str) -> None:
    answer = f"chatcmpl-{uuid.uuid4().hex}"
    async with AsyncThumbwheel.over_kafka(broker, pseudonym_key=b"k", timeout=30.0) as tw:
        for n in range(200):
            tw.comment(answer, str(n), user="ann@example.org")
        assert (await tw.thumbs_up(answer, strict=True)).recorded
        assert await tw.flush(PATIENCE)
    said = read_all(broker, FEEDBACK, lambda event: event.data.response_id == answer, 201)
    assert [event.data.text for event in said if event.data.text] == [str(n) for n in range(200)]
    assert {event.data.user_id[:5] for event in said if event.data.user_id} == {"user-"}
