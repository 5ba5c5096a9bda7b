"""The synchronous client against a gateway over a socket."""

import logging
import os
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.sdk_python.small_gateway import CLOSE, LOST, STALL, SmallGateway, status
from thumbwheel_client import Backoff, Feedback, InvalidEvent, Kind, Rejected, SettingsError, Status, Unavailable
from thumbwheel_client.client import Thumbwheel

ANSWER = "chatcmpl-" + "0" * 32
KEY = "twk_test_very-secret"
FAST = Backoff(first=0.001, longest=0.005)
PATIENCE = 30.0  # seconds before a test gives up on something that should come at once


def client(gateway: SmallGateway, **behaviour: object) -> Thumbwheel:
    return Thumbwheel(gateway.url, api_key=KEY, **({"backoff": FAST} | behaviour))  # type: ignore[arg-type]


def test_every_verb_arrives_as_its_kind(gateway: SmallGateway) -> None:
    with client(gateway) as tw:
        tw.thumbs_up(ANSWER, user="u1", text="nice")
        tw.thumbs_down(ANSWER)
        tw.withdraw(ANSWER)
        tw.change(ANSWER, "thumbs_up")
        tw.comment(ANSWER, "so so")
        tw.correct(ANSWER, "better")
        tw.flag(ANSWER, text="rude")
        tw.copied(ANSWER)
        tw.edited(ANSWER, "edited")
        tw.regenerated(ANSWER)
        assert tw.flush(PATIENCE)
        assert tw.stats.recorded == 10
    said = [(item["kind"], item.get("text")) for item in gateway.feedback.values()]
    assert said == [
        ("thumbs_up", "nice"),
        ("thumbs_down", None),
        ("withdrawal", None),
        ("thumbs_up", None),
        ("comment", "so so"),
        ("correction", "better"),
        ("flag", "rude"),
        ("copy", None),
        ("edit", "edited"),
        ("regenerate", None),
    ]
    first = next(iter(gateway.feedback.values()))
    assert (first["response_id"], first["user"], uuid.UUID(first["id"]).version) == (ANSWER, "u1", 7)
    assert gateway.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert gateway.seen[0].headers["user-agent"].startswith("thumbwheel-client")


def test_a_call_returns_while_the_gateway_stalls(gateway: SmallGateway) -> None:
    gateway.faults.append(STALL)
    with client(gateway) as tw:
        first = tw.thumbs_up(ANSWER)
        assert gateway.arrived.acquire(timeout=PATIENCE)
        second = tw.thumbs_down(ANSWER)
        assert (first.status, second.status) == (Status.WAITING, Status.WAITING)
        gateway.release.set()
        assert second.wait(PATIENCE)
        assert first.recorded


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_succeed_later_is_tried_again(gateway: SmallGateway, code: int) -> None:
    gateway.faults.extend([status(code), status(code)])
    with client(gateway) as tw:
        assert tw.thumbs_up(ANSWER).wait(PATIENCE)
        assert tw.stats.retries == 2
    assert len(gateway.seen) == 3
    assert len({request.body["id"] for request in gateway.seen}) == 1


def test_a_connection_that_breaks_is_tried_again_and_counts_once(gateway: SmallGateway) -> None:
    gateway.faults.extend([CLOSE, LOST])
    with client(gateway) as tw:
        assert tw.thumbs_up(ANSWER).wait(PATIENCE)
    assert (len(gateway.seen), len(gateway.feedback)) == (3, 1)
    assert gateway.seen[0].headers["idempotency-key"] == gateway.seen[2].headers["idempotency-key"]


def test_a_page_of_somebody_else_is_no_acknowledgement(gateway: SmallGateway) -> None:
    gateway.faults.append(status(200, body="<html>Welcome to our network</html>"))
    with client(gateway) as tw:
        assert tw.thumbs_up(ANSWER).wait(PATIENCE)
    assert len(gateway.seen) == 2


def test_what_is_refused_for_good_is_given_up_with_its_reason(
    gateway: SmallGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.faults.append(status(403, error="insufficient_scope"))
    with client(gateway) as tw:
        receipt = tw.thumbs_up(ANSWER)
        assert not receipt.wait(PATIENCE)
        assert (receipt.status, tw.stats.rejected) == (Status.REJECTED, 1)
    assert receipt.reason == "403 insufficient_scope: as told"
    assert "insufficient_scope" in caplog.text
    assert len(gateway.seen) == 1


def test_what_waits_goes_in_one_request(gateway: SmallGateway) -> None:
    gateway.faults.append(STALL)
    with client(gateway) as tw:
        tw.comment(ANSWER, "first")
        assert gateway.arrived.acquire(timeout=PATIENCE)
        for n in range(150):
            tw.comment(ANSWER, str(n))
        gateway.release.set()
        assert tw.flush(PATIENCE)
    assert [request.path for request in gateway.seen] == ["/v1/feedback", "/v1/feedback/batch", "/v1/feedback/batch"]
    assert [len(request.body["items"]) for request in gateway.seen[1:]] == [100, 50]
    assert gateway.texts() == ["first", *map(str, range(150))]


def test_a_batch_block_goes_in_one_request_and_one_that_raises_sends_nothing(gateway: SmallGateway) -> None:
    with client(gateway) as tw:
        with tw.batch() as batch:
            batch.thumbs_up(ANSWER)
            batch.comment(ANSWER, "good")
            batch.comment(ANSWER, "")
        assert [receipt.wait(PATIENCE) for receipt in batch.receipts] == [True, True, False]
        with pytest.raises(ZeroDivisionError), tw.batch() as lost:
            lost.thumbs_down(ANSWER)
            _ = 1 / 0
        assert tw.flush(PATIENCE)
    assert [request.path for request in gateway.seen] == ["/v1/feedback/batch"]
    assert [item["kind"] for item in gateway.feedback.values()] == ["thumbs_up", "comment"]


def test_a_bad_item_of_a_batch_costs_only_itself(gateway: SmallGateway) -> None:
    gateway.refused = "bad"
    with client(gateway) as tw:
        events = [Feedback(response_id=ANSWER, kind=Kind.COMMENT, text=text) for text in ("a", "bad", "b")]
        receipts = tw.send(*events)
        assert [receipt.wait(PATIENCE) for receipt in receipts] == [True, False, True]
        assert (tw.stats.recorded, tw.stats.rejected) == (2, 1)
    assert gateway.texts() == ["a", "b"]


def test_a_batch_that_is_refused_as_a_whole_is_sent_one_by_one(gateway: SmallGateway) -> None:
    gateway.faults.append(status(413, error="request_too_large"))
    with client(gateway) as tw, tw.batch() as batch:
        batch.comment(ANSWER, "a")
        batch.comment(ANSWER, "b")
    assert [receipt.wait(PATIENCE) for receipt in batch.receipts] == [True, True]
    assert [request.path for request in gateway.seen] == ["/v1/feedback/batch", "/v1/feedback", "/v1/feedback"]


def test_an_event_that_breaks_the_gateway_does_not_hold_up_the_others(gateway: SmallGateway) -> None:
    gateway.poison = "poison"
    with client(gateway) as tw:
        events = [Feedback(response_id=ANSWER, kind=Kind.COMMENT, text=text) for text in ("a", "poison", "b")]
        receipts = tw.send(*events)
        assert [receipt.wait(PATIENCE) for receipt in receipts] == [True, False, True]
        assert receipts[1].reason == "500 internal: broke, 10 times"
    assert gateway.texts() == ["a", "b"]


def test_mistakes_are_logged_and_not_raised(gateway: SmallGateway, caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        @property
        def id(self) -> str:
            raise RuntimeError("no id today")

    unwritable = Feedback(response_id=ANSWER, kind=Kind.FLAG)
    object.__setattr__(unwritable, "at", float("nan"))  # no JSON has it
    with client(gateway) as tw:
        receipts = [
            tw.comment(ANSWER, "   "),
            tw.thumbs_up("chatcmpl-of-another-provider"),
            tw.change(ANSWER, "applause"),
            tw.thumbs_up(None),
            tw.thumbs_up(Odd()),
            tw.thumbs_up(ANSWER, purposes=["advertising"]),
            tw.thumbs_up(ANSWER, user="u" * 201),
            tw.comment(ANSWER, 7),  # type: ignore[arg-type]
            *tw.send("no event"),  # type: ignore[arg-type]
            *tw.send(unwritable),
        ]
        assert {receipt.status for receipt in receipts} == {Status.INVALID}
        assert tw.stats.invalid == len(receipts)
        assert tw.flush(PATIENCE)
    assert gateway.seen == []
    assert "needs a non-empty text" in caplog.text


def test_strict_calls_send_at_once_and_raise(gateway: SmallGateway) -> None:
    with client(gateway, strict=True) as tw:
        assert tw.thumbs_up(ANSWER).recorded
        with pytest.raises(InvalidEvent, match="non-empty text"):
            tw.comment(ANSWER, "")
        gateway.faults.append(status(401, error="invalid_api_key"))
        with pytest.raises(Rejected, match="401 invalid_api_key"):
            tw.thumbs_up(ANSWER)
        gateway.faults.extend([status(503)] * 2)
        assert tw.thumbs_up(ANSWER).recorded
        gateway.faults.append(status(503, retry_after=60))
        with pytest.raises(Unavailable, match="503"):
            tw.thumbs_up(ANSWER)
        gateway.refused = "bad"
        with pytest.raises(Rejected, match="invalid_value"), tw.batch() as batch:
            batch.comment(ANSWER, "bad")
            batch.comment(ANSWER, "good")
        assert "good" in gateway.texts()
        assert (tw.stats.recorded, tw.stats.rejected, tw.stats.waiting) == (3, 2, 0)


def test_one_strict_call_of_a_lenient_client_raises(gateway: SmallGateway) -> None:
    with client(gateway) as tw, pytest.raises(InvalidEvent):
        tw.comment(ANSWER, "", strict=True)


def test_a_gateway_that_is_down_costs_the_host_nothing_and_gets_all_of_it_later(gateway: SmallGateway) -> None:
    url = gateway.url
    with SmallGateway() as other:
        dead = other.url
    tw = Thumbwheel(dead, api_key=KEY, backoff=FAST)
    receipt = tw.thumbs_up(ANSWER)
    assert not tw.flush(0.05)
    assert receipt.status is Status.WAITING
    tw.close(0)
    assert (receipt.status, tw.stats.dropped) == (Status.DROPPED, 1)
    assert tw.thumbs_up(ANSWER).status is Status.DROPPED
    assert url != dead


def test_a_full_buffer_drops_the_newest_and_says_so(gateway: SmallGateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway.faults.append(STALL)
    with client(gateway, max_waiting=3) as tw:
        receipts = [tw.comment(ANSWER, str(n)) for n in range(5)]
        assert [receipt.status.value for receipt in receipts] == ["waiting"] * 3 + ["dropped"] * 2
        gateway.release.set()
        assert tw.flush(PATIENCE)
        assert tw.stats.dropped == 2
    assert gateway.texts() == ["0", "1", "2"]
    assert "the buffer is full" in caplog.text


def test_what_was_not_sent_goes_out_with_the_next_start_in_its_order(gateway: SmallGateway, tmp_path: Path) -> None:
    with SmallGateway() as other:
        dead = other.url
    first = Thumbwheel(dead, api_key=KEY, backoff=FAST, spool=tmp_path / "spool")
    receipts = [first.comment(ANSWER, str(n)) for n in range(250)]
    first.close(0)
    closed = datetime.now(UTC)
    assert {receipt.status for receipt in receipts} == {Status.SPOOLED}
    with client(gateway, spool=tmp_path / "spool") as second:
        second.comment(ANSWER, "now")
        assert second.flush(PATIENCE)
    assert gateway.texts() == [*map(str, range(250)), "now"]
    *spooled, now = (datetime.fromisoformat(item["occurred_at"]) for item in gateway.feedback.values())
    assert spooled == sorted(spooled)
    assert spooled[-1] < closed < now
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_spool_holds_no_key_and_is_private(gateway: SmallGateway, tmp_path: Path) -> None:
    gateway.faults.append(STALL)
    tw = client(gateway, spool=tmp_path / "spool")
    tw.comment(ANSWER, "a secret opinion")
    files = list((tmp_path / "spool").iterdir())
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    assert oct((tmp_path / "spool").stat().st_mode & 0o777) == "0o700"
    content = b"".join(path.read_bytes() for path in files)
    assert b"a secret opinion" in content
    assert KEY.encode() not in content
    gateway.release.set()
    tw.close(PATIENCE)


@pytest.mark.parametrize("fsync", [False, True])
def test_many_threads_lose_and_double_nothing(gateway: SmallGateway, tmp_path: Path, fsync: bool) -> None:
    with client(gateway, spool=tmp_path, fsync=fsync) as tw:

        def talk(name: int) -> None:
            for n in range(50):
                tw.comment(ANSWER, f"{name}/{n}")

        threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tw.flush(PATIENCE)
        assert tw.stats.recorded == 200
    for name in range(4):
        assert [t for t in gateway.texts() if t.startswith(f"{name}/")] == [f"{name}/{n}" for n in range(50)]


def test_the_same_id_counts_once(gateway: SmallGateway) -> None:
    gateway.faults.append(STALL)
    with client(gateway) as tw:
        receipts = [tw.thumbs_up(ANSWER, id="order-7"), tw.thumbs_up(ANSWER, id="order-7")]
        gateway.release.set()
        assert [receipt.wait(PATIENCE) for receipt in receipts] == [True, True]
    assert list(gateway.feedback) == ["order-7"]


def test_the_trace_context_travels_and_events_of_two_traces_never_share_a_request(gateway: SmallGateway) -> None:
    traces = [f"00-{digit * 32}-{digit * 16}-01" for digit in "12"]
    with client(gateway) as tw:
        with tw.batch() as batch:
            for trace in (traces[0], traces[0], traces[1]):
                batch.thumbs_up(ANSWER, traceparent=trace)
            batch.thumbs_up(ANSWER, traceparent="not a trace")
        assert tw.flush(PATIENCE)
    assert [request.headers.get("traceparent") for request in gateway.seen] == [*traces, None]
    assert len(gateway.seen[0].body["items"]) == 2


def test_opentelemetrys_current_span_is_the_trace_context(gateway: SmallGateway) -> None:
    from opentelemetry import trace

    context = trace.SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    with client(gateway) as tw, trace.use_span(trace.NonRecordingSpan(context)):
        assert tw.thumbs_up(ANSWER).wait(PATIENCE)
    assert gateway.seen[0].headers["traceparent"] == f"00-{'abc':0>32}-{'def':0>16}-01"


def test_purposes_of_the_client_hold_unless_a_call_says_otherwise(gateway: SmallGateway) -> None:
    with client(gateway, purposes=["training"]) as tw:
        for given in ({}, {"purposes": []}, {"purposes": ["labeling", "training"]}):
            assert tw.thumbs_up(ANSWER, **given).wait(PATIENCE)
    assert [request.body["purposes"] for request in gateway.seen] == [["training"], [], ["labeling", "training"]]


def test_the_key_is_in_no_repr_and_no_log(gateway: SmallGateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gateway.faults.extend([status(503), CLOSE, status(401)])
    with client(gateway) as tw:
        tw.thumbs_up(ANSWER)
        tw.flush(PATIENCE)
        everything = caplog.text + repr(tw) + str(vars(tw)) + repr(tw._transport) + repr(vars(tw._transport))
    assert "503" in caplog.text
    assert KEY not in everything


def test_settings_come_from_the_environment_and_mistakes_are_told_at_once(
    gateway: SmallGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="THUMBWHEEL_URL"):
        Thumbwheel()
    for url, key in (("ftp://x", None), ("no url", None), (gateway.url, "two\nlines")):
        with pytest.raises(SettingsError):
            Thumbwheel(url, api_key=key)
    with pytest.raises(SettingsError, match="unknown setting 'retries'"):
        Thumbwheel(gateway.url, retries=3)  # type: ignore[call-arg]
    monkeypatch.setenv("THUMBWHEEL_URL", f"{gateway.url}/v1/")
    monkeypatch.setenv("THUMBWHEEL_API_KEY", "twk_from_environment")
    with Thumbwheel() as tw:
        assert tw.thumbs_up(ANSWER).wait(PATIENCE)
    assert gateway.seen[0].path == "/v1/feedback"
    assert gateway.seen[0].headers["authorization"] == "Bearer twk_from_environment"


def test_without_a_key_the_answers_own_token_goes_along(gateway: SmallGateway) -> None:
    class Answer:
        id = ANSWER
        model_extra = {"thumbwheel::feedback_token": "abc"}  # noqa: RUF012

    with Thumbwheel(gateway.url) as tw:
        assert tw.thumbs_up(Answer()).wait(PATIENCE)
    assert gateway.seen[0].body["token"] == "abc"
    assert "authorization" not in gateway.seen[0].headers


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_sends_its_own_and_leaves_its_parents(gateway: SmallGateway, tmp_path: Path) -> None:
    gateway.faults.append(STALL)
    tw = client(gateway, spool=tmp_path)
    parents = tw.comment(ANSWER, "parent's")
    assert gateway.arrived.acquire(timeout=PATIENCE)
    child = os.fork()
    if child == 0:
        tw.comment(ANSWER, "child's")
        os._exit(0 if tw.flush(PATIENCE) and tw.stats.recorded == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gateway.texts() == ["child's"]
    gateway.release.set()
    assert parents.wait(PATIENCE)
    tw.close(PATIENCE)
    assert gateway.texts() == ["child's", "parent's"]


def test_a_client_that_is_forgotten_sends_what_it_was_given(gateway: SmallGateway) -> None:
    receipt = client(gateway).thumbs_up(ANSWER)
    assert receipt.wait(PATIENCE)


def test_a_recorded_answer_can_be_rated_at_once(gateway: SmallGateway) -> None:
    with client(gateway, purposes=["training"]) as tw:
        record = tw.record([{"role": "user", "content": "hi"}], "hello", model="m-1", user="u1", temperature=0.5)
        assert record.response_id is not None
        tw.thumbs_up(record.response_id)
        assert tw.flush(PATIENCE)
        assert tw.record([{"role": "user"}], "x", model="m").status is Status.INVALID
    [output] = gateway.outputs.values()
    assert output == {
        "response_id": record.response_id,
        "model": "m-1",
        "messages": [{"role": "user", "content": "hi"}],
        "completion": "hello",
        "user": "u1",
        "metadata": {"purposes": "training"},
        "temperature": 0.5,
    }
    assert [item["response_id"] for item in gateway.feedback.values()] == [record.response_id]
