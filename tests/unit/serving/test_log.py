"""The log without a broker: nothing waits for ever, and nothing is taken that can't be kept."""

import pytest

from schemas.connection import KafkaConnection
from schemas.envelope import Event, new_event
from schemas.errors import BrokerUnavailable, BufferFull
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id
from schemas.topics import FEEDBACK
from serving.adapters.log import EventLog


def thumb() -> Event[Feedback]:
    return new_event(Feedback(response_id=new_response_id(), kind=FeedbackKind.THUMBS_UP), source="test")


@pytest.fixture
def fates() -> list[str]:
    return []


@pytest.fixture
def log(fates: list[str]) -> EventLog:
    nobody = KafkaConnection(bootstrap_servers="127.0.0.1:1")
    return EventLog(
        nobody, client_id="test", buffer_events=3, message_timeout_seconds=0, on_fate=lambda _, fate: fates.append(fate)
    )


async def test_an_event_that_must_be_acknowledged_is_given_up_in_time(log: EventLog, fates: list[str]) -> None:
    with pytest.raises(BrokerUnavailable, match=r"did not acknowledge within 0\.2 s"):
        await log.publish_acknowledged(FEEDBACK, thumb(), 0.2)
    assert fates == ["refused"]
    assert log.close(0.1) == 1


async def test_events_are_buffered_up_to_the_bound_and_then_refused(log: EventLog, fates: list[str]) -> None:
    assert [log.publish_buffered(FEEDBACK, thumb()) for _ in range(5)] == [True, True, True, False, False]
    with pytest.raises(BufferFull):
        await log.publish_acknowledged(FEEDBACK, thumb(), 0.2)
    assert fates == ["dropped", "dropped", "refused"]
    assert log.waiting() == 3
    assert log.close(0.1) == 3


def test_a_broker_that_does_not_answer_is_a_problem_and_is_not_asked_all_the_time(log: EventLog) -> None:
    assert "127.0.0.1:1 does not answer" in str(log.problem(timeout=0.2))
    assert log.problem(timeout=3600.0, max_age=3600.0)  # from memory: a real question would wait for an hour
    log.close(0.1)
