"""Acknowledgements reach the requests that wait for them, from whichever thread they come."""

import asyncio
import threading

import pytest

from serving.adapters.acknowledgements import Expected, Handover


def expected(events: int) -> Expected:
    made = Expected(asyncio.get_running_loop())
    for _ in range(events):
        made.one_more()
    return made


async def test_a_request_goes_on_when_the_last_of_its_events_is_settled() -> None:
    handover, waits = Handover(asyncio.get_running_loop()), expected(3)
    threads = [threading.Thread(target=handover.put, args=(waits.settle, None)) for _ in range(3)]
    for thread in threads[:2]:
        thread.start()
        thread.join()
    with pytest.raises(TimeoutError):
        await waits.all_settled(0.05)
    threads[2].start()
    assert await asyncio.to_thread(threads[2].join) is None
    assert await waits.all_settled(30) is None


async def test_one_problem_is_the_problem_of_the_request() -> None:
    handover, waits = Handover(asyncio.get_running_loop()), expected(3)
    for problem in (None, "disk full", "later"):
        handover.put(waits.settle, problem)
    assert await waits.all_settled(30) == "disk full"


async def test_a_request_without_events_does_not_wait() -> None:
    waits = expected(1)
    waits.one_less()
    assert await waits.all_settled(30) is None


async def test_thousands_from_many_threads_all_arrive() -> None:
    handover, waits = Handover(asyncio.get_running_loop()), expected(8 * 500)

    def put() -> None:
        for _ in range(500):
            handover.put(waits.settle, None)

    for _ in range(8):
        threading.Thread(target=put).start()
    assert await waits.all_settled(30) is None


async def test_the_loop_asks_as_long_as_somebody_waits_and_begins_again() -> None:
    handover, asked, stopped = Handover(asyncio.get_running_loop()), 0, asyncio.Event()

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked % 3 == 0:
            handover.waiting = 0
            stopped.set()

    for total in (3, 6):
        handover.waiting = 1
        handover.turn(ask, 0.001)
        handover.turn(ask, 0.001)  # one round of questions is enough for all who wait
        await asyncio.wait_for(stopped.wait(), 30)
        stopped.clear()
        while handover.asking:  # until the round that finds nobody
            await asyncio.sleep(0)
        assert asked == total


async def test_to_an_end_of_the_loop_nothing_is_handed_over() -> None:
    def on_a_loop_that_ends() -> Handover:
        async def make() -> Handover:
            return Handover(asyncio.get_running_loop())

        return asyncio.run(make())

    ended = await asyncio.to_thread(on_a_loop_that_ends)
    ended.put(lambda problem: None, None)
