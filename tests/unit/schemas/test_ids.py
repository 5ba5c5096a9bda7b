from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from schemas import ids
from schemas.messages import ChatMessage
from schemas.outputs import Output
from tests.contract.make_golden import EXAMPLES


@given(st.integers(0, 2**48 - 1))
def test_a_uuid7_holds_its_time_version_and_variant(milliseconds: int) -> None:
    value = ids.uuid7(milliseconds)
    assert value.int >> 80 == milliseconds
    assert value.version == 7
    assert value.variant == "specified in RFC 4122"


@given(st.integers(0, 2**47), st.integers(1, 2**40))
def test_a_later_uuid7_sorts_after_an_earlier_one_as_text(milliseconds: int, more: int) -> None:
    assert str(ids.uuid7(milliseconds)) < str(ids.uuid7(milliseconds + more))


def test_fresh_ids_differ() -> None:
    assert len({ids.new_response_id() for _ in range(1000)}) == 1000


def test_a_fresh_response_id_is_one_that_the_contracts_accept() -> None:
    output = next(e for e in EXAMPLES.values() if isinstance(e, Output))
    fresh = ids.new_response_id()
    assert Output.model_validate({**output.model_dump(), "response_id": fresh}).response_id == fresh


def test_a_fresh_traceparent_is_one() -> None:
    assert ids.is_traceparent(ids.new_traceparent())


def test_prompt_ids_tell_apart_what_a_plain_join_would_confuse() -> None:
    one = (ChatMessage(role="user", content="ab"), ChatMessage(role="user", content="c"))
    two = (ChatMessage(role="user", content="a"), ChatMessage(role="user", content="bc"))
    assert ids.prompt_id(one) != ids.prompt_id(two)
    assert ids.prompt_id(one) == ids.prompt_id(tuple(one))


def test_a_cycle_id_sorts_by_time() -> None:
    assert ids.new_cycle_id(datetime(2026, 11, 21, 10, tzinfo=UTC)) < ids.new_cycle_id(
        datetime(2026, 11, 21, 11, tzinfo=UTC)
    )
