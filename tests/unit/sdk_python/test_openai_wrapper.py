"""OpenAI's own client, wrapped, against a provider and a gateway over a socket."""

import gc
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.unit.sdk_python.small_gateway import GATEWAYS_ID, PROVIDERS_ID, STALL, SmallGateway
from thumbwheel_client import AsyncThumbwheel, Backoff, Thumbwheel
from thumbwheel_client.events import Output
from thumbwheel_client.ids import is_response_id
from thumbwheel_client.openai_wrapper import wrap

PATIENCE = 30.0
MESSAGES: Any = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]},
]
ASK: Any = {"model": "small", "messages": MESSAGES, "user": "u1", "temperature": 0.3, "max_tokens": 50}


@pytest.fixture
def tw(gateway: SmallGateway) -> Iterator[Thumbwheel]:
    with Thumbwheel(gateway.url, api_key="k", backoff=Backoff(first=0.001, longest=0.005)) as made:
        yield made


@pytest.fixture
def provider(gateway: SmallGateway, tw: Thumbwheel) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/openai/v1", api_key="none", max_retries=0) as client:
        yield tw.wrap(client)


@pytest.fixture
def own(gateway: SmallGateway, tw: Thumbwheel) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield tw.wrap(client)


def test_an_answer_of_another_provider_is_recorded_and_its_thumb_finds_it(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI
) -> None:
    answer = provider.chat.completions.create(**ASK, metadata={"segment": "de", "purposes": "training"})
    tw.thumbs_up(answer)
    tw.comment(answer.choices[0], "nice")
    assert tw.flush(PATIENCE)
    [output] = gateway.outputs.values()
    assert output.pop("latency_seconds") > 0
    assert output == {
        "response_id": answer.thumbwheel_id,  # type: ignore[attr-defined]
        "model": "small-1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi\nthere"}],
        "completion": "Hello there",
        "user": "u1",
        "metadata": {"segment": "de", "purposes": "training"},
        "temperature": 0.3,
        "max_completion_tokens": 50,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    assert {item["response_id"] for item in gateway.feedback.values()} == {output["response_id"]}
    assert is_response_id(output["response_id"])


def test_the_host_sees_the_answer_as_it_was(gateway: SmallGateway, provider: openai.OpenAI) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/openai/v1", api_key="none") as bare:
        plain = bare.chat.completions.create(**ASK)
    wrapped = provider.chat.completions.create(**ASK)
    assert wrapped == plain
    assert wrapped.model_dump() == plain.model_dump()
    assert (type(wrapped), wrapped.id) == (type(plain), PROVIDERS_ID)
    assert isinstance(provider, openai.OpenAI)


def test_an_answer_of_the_gateway_is_left_to_the_gateway(
    gateway: SmallGateway, tw: Thumbwheel, own: openai.OpenAI
) -> None:
    answer = own.chat.completions.create(**ASK)
    stream = own.chat.completions.create(**ASK, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "Hello there"
    for rated in (answer, stream):
        assert tw.thumbs_up(rated).wait(PATIENCE)
    assert gateway.outputs == {}
    assert [item["response_id"] for item in gateway.feedback.values()] == [GATEWAYS_ID, GATEWAYS_ID]


def test_without_a_key_a_gateways_token_comes_from_the_stream_too(gateway: SmallGateway) -> None:
    with Thumbwheel(gateway.url) as keyless, openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        stream = keyless.wrap(client).chat.completions.create(**ASK, stream=True)
        for _ in stream:
            pass
        assert keyless.thumbs_up(stream).wait(PATIENCE)
    assert gateway.seen[-1].body["token"] == "token-1"


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_is_collected_as_it_passes(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI, usage: bool
) -> None:
    stream = provider.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": usage})
    assert isinstance(stream, openai.Stream)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there"
    tw.thumbs_up(chunks[-1])
    tw.thumbs_down(stream)
    assert tw.flush(PATIENCE)
    [output] = gateway.outputs.values()
    assert (output["completion"], output["finish_reason"]) == ("Hello there", "stop")
    assert output.get("usage") == ({"prompt_tokens": 7, "completion_tokens": 3} if usage else None)
    assert {item["response_id"] for item in gateway.feedback.values()} == {output["response_id"]}


def stop_by_break(stream: Any) -> None:
    for chunk in stream:
        if chunk.choices[0].delta.content == "lo ":
            break


def stop_by_with(stream: Any) -> None:
    with stream:
        stop_by_break(stream)


def stop_by_close(stream: Any) -> None:
    stop_by_break(stream)
    stream.close()


@pytest.mark.parametrize("stop", [stop_by_break, stop_by_with, stop_by_close])
def test_a_stream_that_is_left_early_is_recorded_as_far_as_it_came(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI, stop: Any
) -> None:
    stream = provider.chat.completions.create(**ASK, stream=True)
    stop(stream)
    del stream
    gc.collect()  # openai's streams refer to themselves: one that is only left ends when the collector comes by
    assert tw.flush(PATIENCE)
    [output] = gateway.outputs.values()
    assert (output["completion"], output["finish_reason"]) == ("Hello ", "length")


def test_a_stream_that_is_read_in_two_loops_is_recorded_whole(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI
) -> None:
    stream = provider.chat.completions.create(**ASK, stream=True)
    first = next(iter(stream))
    rest = list(stream)
    assert (first.choices[0].delta.role, len(rest)) == ("assistant", 4)
    assert tw.flush(PATIENCE)
    assert [output["completion"] for output in gateway.outputs.values()] == ["Hello there"]


def test_a_stream_that_nobody_reads_is_no_answer(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI
) -> None:
    provider.chat.completions.create(**ASK, stream=True).close()
    assert tw.flush(PATIENCE)
    assert gateway.outputs == {}


def test_the_streaming_helper_works_and_is_recorded(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI
) -> None:
    with provider.chat.completions.stream(model="small", messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello there"
    assert tw.flush(PATIENCE)
    assert [output["completion"] for output in gateway.outputs.values()] == ["Hello there"]


def test_the_parsing_helper_works_and_is_recorded(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI
) -> None:
    answer = provider.chat.completions.parse(model="small", messages=MESSAGES)
    assert tw.thumbs_up(answer).wait(PATIENCE)
    assert len(gateway.outputs) == 1


def test_each_of_several_choices_is_an_answer_of_its_own(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI
) -> None:
    answer = provider.chat.completions.create(**ASK, n=2)
    tw.thumbs_up(answer.choices[1])
    tw.thumbs_down(answer)
    assert tw.flush(PATIENCE)
    outputs = list(gateway.outputs.values())
    assert [output["completion"] for output in outputs] == ["Hello there", "Hello 1"]
    assert all("usage" not in output for output in outputs)
    rated = {item["kind"]: item["response_id"] for item in gateway.feedback.values()}
    assert rated == {"thumbs_up": outputs[1]["response_id"], "thumbs_down": outputs[0]["response_id"]}


@pytest.mark.parametrize(
    "ask",
    [
        {"store": False},
        {"store": False, "stream": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
        {"metadata": {"purposes": "advertising"}},
    ],
)
def test_what_is_not_understood_or_not_wanted_goes_through_unrecorded(
    gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI, ask: Any
) -> None:
    answer = provider.chat.completions.create(**(ASK | ask))
    assert list(answer)
    assert tw.flush(PATIENCE)
    assert gateway.outputs == {}


def test_raw_responses_go_through_untouched(gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI) -> None:
    raw = provider.chat.completions.with_raw_response.create(**ASK)
    assert raw.parse().choices[0].message.content == "Hello there"
    with provider.chat.completions.with_streaming_response.create(**ASK) as streamed:
        assert streamed.status_code == 200
    assert tw.flush(PATIENCE)
    assert gateway.outputs == {}


def test_wrapping_twice_records_once(gateway: SmallGateway, tw: Thumbwheel, provider: openai.OpenAI) -> None:
    tw.wrap(tw.wrap(provider)).chat.completions.create(**ASK)
    assert tw.flush(PATIENCE)
    assert len(gateway.outputs) == 1


def test_the_hosts_own_errors_reach_the_host(provider: openai.OpenAI) -> None:
    with pytest.raises(TypeError):
        provider.chat.completions.create(nonsense=True)  # type: ignore[call-overload]
    provider.base_url = "http://127.0.0.1:9/v1"
    with pytest.raises(openai.APIConnectionError):
        provider.chat.completions.create(**ASK)


def test_a_stalled_gateway_delays_no_answer(gateway: SmallGateway, provider: openai.OpenAI) -> None:
    gateway.faults.extend([STALL] * 2)
    for _ in range(5):
        assert provider.chat.completions.create(**ASK).choices[0].message.content == "Hello there"
    assert not gateway.release.is_set()
    gateway.release.set()


def test_a_bug_in_the_recording_costs_a_recording_and_never_the_call(
    gateway: SmallGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(output: Output, later: bool) -> None:
        raise KeyError("a bug of ours")

    with openai.OpenAI(base_url=f"{gateway.url}/openai/v1", api_key="none") as client:
        wrap(client, broken)
        for _ in range(3):
            assert client.chat.completions.create(**ASK).choices[0].message.content == "Hello there"
            assert len(list(client.chat.completions.create(**ASK, stream=True))) == 5
    assert caplog.text.count("a bug of ours") == 1


def test_something_that_is_no_client_is_left_as_it_is(tw: Thumbwheel, caplog: pytest.LogCaptureFixture) -> None:
    thing = object()
    assert tw.wrap(thing) is thing
    assert "has no chat.completions" in caplog.text


async def test_an_asynchronous_client_is_recorded_plain_streamed_and_left_early(gateway: SmallGateway) -> None:
    async with AsyncThumbwheel(gateway.url, api_key="k") as tw:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/openai/v1", api_key="none") as client:
            tw.wrap(client)
            answer = await client.chat.completions.create(**ASK)
            assert (await tw.thumbs_up(answer)).recorded
            stream = await client.chat.completions.create(**ASK, stream=True)
            assert isinstance(stream, openai.AsyncStream)
            assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "Hello there"
            async with await client.chat.completions.create(**ASK, stream=True) as early:
                async for chunk in early:
                    if chunk.choices[0].delta.content == "Hel":
                        break
            assert (await tw.thumbs_up(stream)).recorded
        assert await tw.flush(PATIENCE)
    assert [output["completion"] for output in gateway.outputs.values()] == ["Hello there", "Hello there", "Hel"]
    rated = [item["response_id"] for item in gateway.feedback.values()]
    assert rated == list(gateway.outputs)[:2]


async def test_a_synchronous_thumbwheel_wraps_an_asynchronous_client(gateway: SmallGateway, tw: Thumbwheel) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/openai/v1", api_key="none") as client:
        answer = await tw.wrap(client).chat.completions.create(**ASK)
    assert tw.thumbs_up(answer).wait(PATIENCE)
    assert tw.flush(PATIENCE)
    assert len(gateway.outputs) == 1
