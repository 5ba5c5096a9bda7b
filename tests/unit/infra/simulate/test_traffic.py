"""Simulated traffic against a real HTTP server."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from infra.simulate import prompts, users
from infra.simulate.client import GatewayClient, GatewayFailed
from infra.simulate.tastes import TasteFailed, checked, considerate
from infra.simulate.traffic import Pace, Traffic, TrafficPlan
from schemas.feedback import FeedbackKind
from tests.unit.infra.simulate.gateway_double import GatewayDouble, serve


def plan(**changes: object) -> TrafficPlan:
    values: dict[str, object] = {
        "population": users.population(users=10, noise=0.2, spammers=1, seed=0),
        "prompts": prompts.traffic(),
        "taste": considerate,
        "temperature": 0.8,
        "max_completion_tokens": 24,
        "concurrency": 4,
        "first_thumbs_after": 20,
    }
    return TrafficPlan(**{**values, **changes})  # type: ignore[arg-type]


async def drive(double: GatewayDouble, until: Callable[[Traffic], bool], **changes: object) -> Traffic:
    """Traffic until a condition holds, then to the end of the visits that have begun."""
    stop = asyncio.Event()
    async with GatewayClient(double.url, patience=5) as client:
        traffic = Traffic(plan(**changes), client, pace=Pace())
        running = asyncio.create_task(traffic.run(stop))
        while not until(traffic) and not running.done():
            await asyncio.sleep(0.01)
        stop.set()
        await running
    return traffic


async def test_nobody_rates_before_the_first_answers_have_been_read() -> None:
    with serve() as double:
        traffic = await drive(double, lambda t: t.ledger.answers >= 15, first_thumbs_after=1000)
        assert double.feedback == []
        assert traffic.scale is None


async def test_what_the_gateway_took_is_what_the_ledger_says_was_acknowledged() -> None:
    with serve() as double:
        traffic = await drive(double, lambda t: t.ledger.answers >= 150)
        assert Counter(f["id"] for f in double.feedback) == traffic.ledger.acknowledged
        assert len(double.requests) == traffic.ledger.answers == len(traffic.ledger.response_ids)
        linked = [r["metadata"]["regenerates"] for r in double.requests if "metadata" in r]
        assert linked
        assert set(linked) <= traffic.ledger.response_ids


async def test_one_seed_asks_the_same_prompts_of_the_same_users() -> None:
    async def asked(seed: int) -> set[tuple[str, str, int]]:
        with serve() as double:
            await drive(double, lambda t: t.ledger.answers >= 40, seed=seed, concurrency=1, first_thumbs_after=1000)
            return {(r["messages"][0]["content"], r["user"], r["seed"]) for r in double.requests[:40]}

    assert await asked(1) == await asked(1)
    assert await asked(1) != await asked(2)


async def test_feedback_that_was_refused_or_lost_on_the_way_is_sent_again_under_the_same_id() -> None:
    with serve() as double:
        double.busy, double.dropped = 3, 2
        traffic = await drive(double, lambda t: t.ledger.acknowledged.total() >= 30)
        assert traffic.ledger.retries >= 5
        taken = Counter(f["id"] for f in double.feedback)
        assert set(taken) == set(traffic.ledger.acknowledged)
        assert (taken - traffic.ledger.acknowledged).total() == 2
        assert all(taken[i] <= n for i, n in traffic.ledger.attempts.items())


async def test_a_refusal_that_waiting_would_not_mend_ends_the_traffic_with_a_clear_error() -> None:
    with serve() as double:
        double.refuse = 500
        with pytest.raises(GatewayFailed, match="refused POST /v1/chat/completions with 500"):
            await drive(double, lambda t: False)


async def test_a_gateway_that_stays_away_is_given_up() -> None:
    async with GatewayClient("http://127.0.0.1:9", patience=0.2) as client:
        with pytest.raises(GatewayFailed, match="without success"):
            await client.say("chatcmpl-" + "0" * 32, FeedbackKind.THUMBS_UP, id="x")


async def test_a_taste_that_fails_ends_the_traffic_with_its_name() -> None:
    def broken(prompt: str, response: str) -> float:
        raise RuntimeError("no idea")

    with serve() as double, pytest.raises(TasteFailed, match="mine:broken failed with RuntimeError: no idea"):
        await drive(double, lambda t: False, taste=checked(broken, "mine:broken"))


async def test_bad_requests_are_refused_and_counted() -> None:
    with serve() as double:
        async with GatewayClient(double.url) as client:
            traffic = Traffic(plan(), client, pace=Pace())
            await traffic.misbehave()
        assert traffic.ledger.refused_on_purpose == 3
        assert double.bad == {"malformed": 1, "id": 1, "empty": 1}


async def test_at_pace_zero_nobody_asks() -> None:
    stop = asyncio.Event()
    with serve() as double:
        async with GatewayClient(double.url) as client:
            traffic = Traffic(plan(), client, pace=Pace(0.0))
            running = asyncio.create_task(traffic.run(stop))
            await asyncio.sleep(0.2)
            stop.set()
            await running
        assert double.requests == []
