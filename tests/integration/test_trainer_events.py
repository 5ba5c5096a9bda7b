"""The trainer's log: the one in memory keeps the promises of the real one."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import pytest

from infra.local.ports import free_port
from schemas.connection import KafkaConnection
from schemas.envelope import new_event
from schemas.errors import BrokerUnavailable
from schemas.health import Alert
from schemas.versions import ModelVersion, VersionState
from trainer.adapters.events import Events, KafkaEvents, MemoryEvents


@pytest.fixture(params=["memory", "kafka"])
def events(request: pytest.FixtureRequest) -> Iterator[Events]:
    if request.param == "memory":
        log: Events = MemoryEvents()
    else:
        log = KafkaEvents(KafkaConnection(bootstrap_servers=request.getfixturevalue("fresh_broker")))
    yield log
    log.close()


@pytest.fixture(params=["memory", "kafka"])
def unreachable(request: pytest.FixtureRequest) -> Iterator[Events]:
    if request.param == "memory":
        log = MemoryEvents()
        log.down = True
        yield log
    else:
        nobody = KafkaEvents(KafkaConnection(bootstrap_servers=f"127.0.0.1:{free_port()}"), timeout=1.0)
        yield nobody
        nobody.close()


def version(name: str, state: VersionState) -> ModelVersion:
    return ModelVersion(version=name, state=state, base_model="tiny", actor="test")


def test_a_log_without_versions_gives_an_empty_board(events: Events) -> None:
    assert events.board().standings == {}


def test_the_board_holds_what_was_published_in_order(events: Events) -> None:
    for state in (VersionState.REGISTERED, VersionState.LIVE):
        events.publish(new_event(version("v1", state), source="test"))
    board = events.board()
    assert board.state("v1") is VersionState.LIVE
    live = board.live()
    assert live is not None and live.version == "v1"


def test_an_alert_is_open_since_it_was_raised_first_and_until_it_is_resolved(events: Events) -> None:
    def tell(fingerprint: str, state: Literal["raised", "resolved"], minute: int) -> None:
        data = Alert(fingerprint=fingerprint, state=state, name="drift-topics", severity="ticket", summary="they move")
        at = datetime(2026, 11, 21, 12, minute, tzinfo=UTC)
        events.publish(new_event(data, source="test", id=f"{fingerprint}-{minute}", time=at))

    assert events.open_alerts() == ()
    for fingerprint, state, minute in (
        ("a", "raised", 1),
        ("b", "raised", 2),
        ("a", "raised", 3),
        ("b", "resolved", 4),
    ):
        tell(fingerprint, state, minute)
    assert [(o.alert.fingerprint, o.since.minute) for o in events.open_alerts()] == [("a", 1)]
    tell("b", "raised", 5)
    assert [(o.alert.fingerprint, o.since.minute) for o in events.open_alerts()] == [("a", 1), ("b", 5)]


def test_an_event_published_twice_changes_the_board_once(events: Events) -> None:
    event = new_event(version("v1", VersionState.REGISTERED), source="test", id="stable")
    events.publish(event)
    events.publish(event)
    assert list(events.board().standings) == ["v1"]


def test_publishing_to_a_log_that_is_away_says_so(unreachable: Events) -> None:
    with pytest.raises(BrokerUnavailable):
        unreachable.publish(new_event(version("v1", VersionState.REGISTERED), source="test"))


def test_reading_a_log_that_is_away_says_so(unreachable: Events) -> None:
    with pytest.raises(BrokerUnavailable):
        unreachable.board()


def test_an_offer_to_a_log_that_is_away_is_dropped_in_silence(unreachable: Events) -> None:
    unreachable.offer(new_event(version("v1", VersionState.REGISTERED), source="test"))
