"""The live agents on a real broker: indicators come out, and a stop is a stop."""

import urllib.request
from pathlib import Path

from confluent_kafka.admin import AdminClient

from infra.local.broker import EmbeddedBroker
from infra.local.ports import free_port
from infra.local.topics import create_topics
from schemas.connection import KafkaConnection
from schemas.envelope import decode
from schemas.health import Sli
from schemas.topics import FEEDBACK, OUTPUTS, SLIS
from tests.integration.streams_kit import Kit, event, feedback, output, stop, until


def slis(kit: Kit) -> list[Sli]:
    return [decode(Sli, m.value(), m.headers() or []).data for m in kit.read(SLIS.name)]


def metric(port: int, line: str) -> float:
    """A sample of /metrics, 0 where it isn't there (yet)."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    return next((float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith(line)), 0.0)


def test_answers_and_thumbs_become_indicators_by_version_and_bad_events_stop_nothing(
    fresh_broker: str, tmp_path: Path
) -> None:
    kit, port = Kit(fresh_broker, tmp_path / "data"), free_port()
    process = kit.start("agents", METRICS_PORT=str(port), AGENTS_WINDOW_SECONDS="1")
    seen = 'thumbwheel_outputs_total{version="v1"}'

    def one_more() -> None:
        """It begins at the log's end, whenever that is: send until it listens."""
        kit.send_raw(OUTPUTS.name, b"\xff broken")
        kit.send_raw(FEEDBACK.name, None)
        answer = output(version="v1", segment="mobile")
        kit.send(event(answer), event(feedback(answer.response_id, "thumbs_up")))

    try:
        until(lambda: metric(port, seen) >= 3, "three answers counted", doing=one_more)
        thumbs = 'thumbwheel_thumbs_total{kind="thumbs_up",version="v1"}'
        until(lambda: metric(port, thumbs) >= 3, "three thumbs counted", doing=one_more)
        until(lambda: sum(s.outputs for s in slis(kit) if s.version == "v1") >= 3, "indicators of the answers")
        until(lambda: sum(s.thumbs_up for s in slis(kit) if s.version == "v1") >= 3, "indicators of the thumbs")
        assert {s.segment for s in slis(kit) if s.version == "v1"} == {"mobile"}
    finally:
        assert stop(process) == 0


def test_they_create_no_topics(fresh_broker: str, tmp_path: Path) -> None:
    kit, port = Kit(fresh_broker, tmp_path / "data"), free_port()
    admin = AdminClient({"bootstrap.servers": fresh_broker})
    before = set(admin.list_topics(timeout=10).topics)
    process = kit.start("agents", METRICS_PORT=str(port))
    try:
        until(
            lambda: metric(port, "thumbwheel_outputs_total") >= 1,
            "the agents at work",
            doing=lambda: kit.send(event(output())),
        )
        topics = set(admin.list_topics(timeout=10).topics)
    finally:
        assert stop(process) == 0
    assert {t for t in topics - before if not t.startswith("__")} == set()


def test_they_wait_for_a_broker_that_is_down(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker" / "data", free_port())
    kit, port = Kit(broker.bootstrap_servers, tmp_path / "data"), free_port()
    process = kit.start("agents", METRICS_PORT=str(port))
    try:
        until(lambda: "waiting for the log" in (kit.data / "agents.log").read_text(), "word that it waits")
        broker.start()
        create_topics(KafkaConnection(bootstrap_servers=broker.bootstrap_servers))
        until(
            lambda: metric(port, "thumbwheel_outputs_total") >= 1,
            "the agents at work",
            doing=lambda: kit.send(event(output())),
        )
    finally:
        code = stop(process)
        broker.stop()
    assert code == 0
