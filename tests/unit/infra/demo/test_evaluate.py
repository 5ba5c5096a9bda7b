"""The versions compared on held-out prompts."""

from dataclasses import replace

import pytest

from infra.demo.evaluate import evaluate
from infra.demo.options import TINY
from infra.simulate import prompts
from infra.simulate.client import GatewayClient, GatewayFailed
from infra.simulate.tastes import considerate
from tests.unit.infra.demo.outcomes import PROMPTS, evaluation
from tests.unit.infra.simulate.gateway_double import serve

TUNING = replace(TINY, evaluation_samples=2)


def test_examples_are_evenly_spaced_prompts_with_the_first_sample_of_each_version() -> None:
    first, second = evaluation().examples
    assert (first.prompt, second.prompt) == (PROMPTS[1], PROMPTS[3])
    assert first.answers["base"] == ("It is", 0.0)


async def test_every_version_is_asked_every_held_out_prompt_pinned_unstored_and_with_the_same_seeds() -> None:
    with serve() as double:
        async with GatewayClient(double.url) as client:
            found = await evaluate(client, ["base", "v1"], tuning=TUNING, taste=considerate, seed=0)
        assert set(found.scores) == {"base", "v1"}
        assert len(double.requests) == 2 * 2 * len(prompts.held_out())
        assert {r["store"] for r in double.requests} == {False}

        def asked(version: str) -> set[tuple[str, int]]:
            mine = (r for r in double.requests if r["model"] == f"thumbwheel:{version}")
            return {(r["messages"][-1]["content"], r["seed"]) for r in mine}

        assert asked("base") == asked("v1")
        assert {prompt for prompt, _ in asked("base")} == set(prompts.held_out())


async def test_a_rejected_version_that_cannot_be_asked_is_left_out_with_the_reason() -> None:
    with serve() as double:
        double.unknown = "v2"
        async with GatewayClient(double.url) as client:
            found = await evaluate(
                client, ["base", "v2"], tuning=TUNING, taste=considerate, seed=0, optional=frozenset({"v2"})
            )
            assert set(found.scores) == {"base"}
            assert found.left_out[0][0] == "v2"
            with pytest.raises(GatewayFailed, match="404"):
                await evaluate(client, ["base", "v2"], tuning=TUNING, taste=considerate, seed=0)
