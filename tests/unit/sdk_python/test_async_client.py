"""The asynchronous client against a gateway over a socket."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.sdk_python.small_gateway import CLOSE, STALL, SmallGateway, status
from thumbwheel_client import AsyncThumbwheel, Backoff, InvalidEvent, Rejected, Status, Unavailable

ANSWER = "chatcmpl-" + "0" * 32
FAST = Backoff(first=0.001, longest=0.005)
PATIENCE = 30.0


def client(gateway: SmallGateway, **behaviour: object) -> AsyncThumbwheel:
    return AsyncThumbwheel(gateway.url, api_key="k", **({"backoff": FAST} | behaviour))  # type: ignore[arg-type]


async def arrived(gateway: SmallGateway) -> None:
    assert await asyncio.to_thread(gateway.arrived.acquire, timeout=PATIENCE)


async def test_a_call_needs_no_await_and_an_await_waits_for_the_record(gateway: SmallGateway) -> None:
    async with client(gateway) as tw:
        tw.thumbs_up(ANSWER, user="u1")
        receipt = await tw.correct(ANSWER, "better")
        assert receipt.recorded
        assert await tw.flush(PATIENCE)
        assert tw.stats.recorded == 2
    assert [item["kind"] for item in gateway.feedback.values()] == ["thumbs_up", "correction"]


async def test_an_await_gives_up_on_a_gateway_that_stalls(gateway: SmallGateway) -> None:
    gateway.faults.append(STALL)
    async with client(gateway, timeout=0.2) as tw:
        receipt = await tw.thumbs_up(ANSWER)
        assert receipt.status is Status.WAITING
        gateway.release.set()
        assert await tw.flush(PATIENCE)
        assert receipt.recorded


async def test_what_may_succeed_later_is_tried_again_and_the_rest_is_given_up(gateway: SmallGateway) -> None:
    gateway.faults.extend([status(503), CLOSE, status(429, retry_after=0)])
    async with client(gateway) as tw:
        assert (await tw.thumbs_up(ANSWER)).recorded
        gateway.faults.append(status(401))
        assert (await tw.thumbs_up(ANSWER)).status is Status.REJECTED
        assert (await tw.comment(ANSWER, "")).status is Status.INVALID
    assert len(gateway.seen) == 5


async def test_strict_awaits_raise(gateway: SmallGateway) -> None:
    async with client(gateway, strict=True) as tw:
        assert (await tw.thumbs_up(ANSWER)).recorded
        with pytest.raises(InvalidEvent):
            tw.comment(ANSWER, "")
        gateway.faults.append(status(401, error="invalid_api_key"))
        with pytest.raises(Rejected, match="invalid_api_key"):
            await tw.thumbs_up(ANSWER)
        gateway.faults.append(status(503, retry_after=60))
        with pytest.raises(Unavailable, match="503"):
            await tw.thumbs_up(ANSWER)
        gateway.refused = "bad"
        with pytest.raises(Rejected, match="invalid_value"):
            async with tw.batch() as batch:
                batch.comment(ANSWER, "good")
                batch.comment(ANSWER, "bad")
    assert gateway.texts() == [None, "good"]


async def test_a_batch_block_goes_in_one_request(gateway: SmallGateway) -> None:
    async with client(gateway) as tw:
        with tw.batch() as batch:
            batch.thumbs_up(ANSWER)
            batch.flag(ANSWER)
        assert [(await receipt).recorded for receipt in batch.receipts] == [True, True]
    assert [request.path for request in gateway.seen] == ["/v1/feedback/batch"]


def test_one_client_serves_one_loop_after_the_other(gateway: SmallGateway) -> None:
    tw = client(gateway)

    async def say(text: str) -> None:
        assert (await tw.comment(ANSWER, text)).recorded

    asyncio.run(say("first loop"))
    asyncio.run(say("second loop"))
    tw.comment(ANSWER, "between the loops")
    asyncio.run(say("third loop"))
    asyncio.run(tw.close())
    assert gateway.texts() == ["first loop", "second loop", "between the loops", "third loop"]


@pytest.mark.parametrize("fsync", [False, True])
async def test_what_was_not_sent_goes_out_with_the_next_start(
    gateway: SmallGateway, tmp_path: Path, fsync: bool
) -> None:
    with SmallGateway() as other:
        dead = other.url
    first = AsyncThumbwheel(dead, api_key="k", backoff=FAST, spool=tmp_path)
    receipts = [first.comment(ANSWER, str(n)) for n in range(5)]
    await first.close(0.05)
    assert {receipt.status for receipt in receipts} == {Status.SPOOLED}
    async with client(gateway, spool=tmp_path, fsync=fsync) as second:
        assert await second.flush(PATIENCE)
    assert gateway.texts() == [str(n) for n in range(5)]


async def test_calls_from_threads_arrive_too(gateway: SmallGateway) -> None:
    async with client(gateway) as tw:
        tw.comment(ANSWER, "loop")
        receipt = await asyncio.to_thread(tw.comment, ANSWER, "thread")
        assert (await receipt).recorded
    assert gateway.texts() == ["loop", "thread"]


async def test_cancelling_who_waits_leaves_the_event_on_its_way(gateway: SmallGateway) -> None:
    gateway.faults.append(STALL)
    async with client(gateway) as tw:
        receipt = tw.thumbs_up(ANSWER)

        async def wait() -> None:
            await receipt

        waiting = asyncio.create_task(wait())
        await arrived(gateway)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gateway.release.set()
        assert await tw.flush(PATIENCE)
    assert len(gateway.feedback) == 1
