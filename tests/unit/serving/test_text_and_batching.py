"""Text leaves in whole characters and without stop strings; requests join in order and within the budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.batching import Waiting, admit, evictable
from serving.core.text import StopFilter, TextStream


def decode_bytes(ids: object) -> str:
    return bytes(ids).decode(errors="replace")  # type: ignore[call-overload]


@given(st.text(max_size=40).filter(lambda text: not text.endswith("\ufffd")))
def test_a_text_in_single_bytes_arrives_whole_and_never_with_half_a_character(text: str) -> None:
    stream = TextStream(decode_bytes)
    pieces = [stream.push(byte) for byte in text.encode()]
    assert "".join(pieces) + stream.finish() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_that_never_ends_is_left_out() -> None:
    stream = TextStream(decode_bytes)
    sent = "".join(stream.push(byte) for byte in "ok€".encode()[:-1])
    assert (sent, stream.finish()) == ("ok", "")


def test_what_could_be_a_stop_string_is_held_back_until_it_is_not() -> None:
    stops = StopFilter(["END"])
    assert [stops.push(part) for part in ("a", "E", "N", "x", "EN")] == ["a", "", "", "ENx", ""]
    assert stops.finish() == "EN"


def test_of_two_stop_strings_the_first_to_appear_ends_the_text() -> None:
    stops = StopFilter(["world", "lo"])
    assert stops.push("hello world") == "hel"
    assert stops.stopped
    assert stops.push("more") == ""


@given(
    st.text("ab", max_size=30),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 4), min_size=30, max_size=30),
)
def test_a_stop_string_is_cut_alike_however_the_text_is_sliced(text: str, stops: list[str], sizes: list[int]) -> None:
    sieve, sent, rest = StopFilter(stops), "", text
    for size in sizes:
        sent += sieve.push(rest[:size])
        rest = rest[size:]
    sent += sieve.finish()
    # A stop string is seen as soon as it is complete: the one that ends first cuts, at the earliest start of any.
    ends = [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not ends:
        assert sent == text
    else:
        assert not any(stop in sent for stop in stops)
        assert text.startswith(sent)


def waiting(*requests: tuple[str, int]) -> list[Waiting]:
    return [Waiting(version, tokens) for version, tokens in requests]


def test_requests_join_in_order_until_the_batch_is_full() -> None:
    queue = waiting(("a", 5), ("b", 5), ("a", 5))
    assert admit(queue, running=2, max_batch=4, max_prefill_tokens=100) == {"a": (0,), "b": (1,)}
    assert admit(queue, running=4, max_batch=4, max_prefill_tokens=100) == {}


def test_a_prefill_counts_with_its_padding() -> None:
    # Three rows padded to 40 are 120 tokens: too many; two are 80.
    queue = waiting(("a", 40), ("a", 5), ("a", 5))
    assert admit(queue, running=0, max_batch=9, max_prefill_tokens=100) == {"a": (0, 1)}


def test_a_prompt_above_the_budget_is_read_alone() -> None:
    assert admit(waiting(("a", 500), ("a", 5)), running=0, max_batch=9, max_prefill_tokens=100) == {"a": (0,)}


@pytest.mark.parametrize(
    ("in_use", "keep", "gone"),
    [(set(), set(), ("v1", "v2")), ({"v1"}, set(), ("v2", "v3")), (set(), {"v1", "v2", "v3"}, ("v4",))],
)
def test_adapters_leave_from_the_least_recently_used_but_never_one_that_is_needed(
    in_use: set[str], keep: set[str], gone: tuple[str, ...]
) -> None:
    loaded = ["v1", "v2", "v3", "v4"]
    assert evictable(loaded, in_use=frozenset(in_use), keep=frozenset(keep), max_adapters=2) == gone
