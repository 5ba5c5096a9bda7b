"""Answers from a vLLM server: that they are the policy's, and what becomes of servers that do the wrong things."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import GenerationFailed, SettingsError
from tests.unit.trainer.adapters.vllm_server import FakeVllm, Reply, running
from tests.unit.trainer.core.language import EOS, policy
from trainer.adapters.policies import Policy
from trainer.adapters.vllm import Server, same_server, serving
from trainer.core.collecting import collect
from trainer.core.generation import Agreement, agreement, require_agreement
from trainer.core.overseers import Overseers
from trainer.core.ppo import improve
from trainer.core.ppo_config import PPOConfig, PPOReport
from trainer.core.ppo_update import Trainer
from trainer.core.rollout import SamplingConfig
from trainer.settings import TrainerSettings

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [4, 4, 4], [12, 13, 14, 15]]
SMALL = PPOConfig(
    iterations=3,
    prompts_per_iteration=4,
    answers_per_prompt=8,
    sampling=SamplingConfig(max_new_tokens=8, temperature=0.8),
    epochs=2,
    minibatches=2,
    learning_rate=1e-2,
    kl_budget=1e9,
    closing_prompts=0,
)
LOAD, UNLOAD, COMPLETIONS = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"


def reward(features_NF: torch.Tensor) -> torch.Tensor:
    return (features_NF[:, 0] * 3).clamp(-3, 3)


def client(url: str, folder: Path, *, seconds: float = 30.0, tries: int = 1, token: str | None = None) -> Server:
    return Server(url, token=token, adapters=folder, seconds=seconds, tries=tries)


def trained(url: str, folder: Path, config: PPOConfig = SMALL, **options: Any) -> tuple[Policy, PPOReport]:
    made, server = policy(), client(url, folder, **options)
    report = improve(made, reward, PROMPTS, config, seed=0, drawing=server)
    server.close()
    return made, report


@pytest.mark.parametrize("critic", ["shared", "separate", "none"])
def test_a_training_from_a_servers_answers_begins_each_update_at_ratio_one_and_agrees_with_the_server(
    critic: Any, tmp_path: Path
) -> None:
    server = FakeVllm(policy(critic=critic))
    with running(server) as url:
        drawing = client(url, tmp_path, token="s3cret")
        made = policy(critic=critic)
        report = improve(made, reward, PROMPTS, replace(SMALL, critic=critic), seed=0, drawing=drawing)
        drawing.close()
    for step in report.steps:
        assert step.first_ratio == pytest.approx(1.0, abs=1e-6)
        assert step.mismatch == pytest.approx(0.0, abs=1e-5)
        assert step.importance == pytest.approx(1.0, abs=1e-5)
        assert 0 < step.entropy < math.log(24)
    assert report.steps[-1].kl > 0.01  # the adapter that the server had did change
    assert len(server.loaded) == len(set(server.loaded)) == 3
    assert server.adapters == {} and list(tmp_path.iterdir()) == []
    assert set(server.tokens) == {"Bearer s3cret"}


def test_a_request_switches_off_all_that_a_server_would_add_to_the_sampling(tmp_path: Path) -> None:
    server = FakeVllm(policy())
    with running(server) as url:
        trained(url, tmp_path, replace(SMALL, iterations=1))
    asked = sorted((told for told in server.asked), key=lambda told: told["prompt"])
    assert [told["prompt"] for told in asked] == sorted(PROMPTS)
    assert len({told["seed"] for told in asked}) == 4
    told = {k: v for k, v in asked[0].items() if k not in ("model", "prompt", "seed")}
    assert told == {
        "n": 8, "max_tokens": 8, "temperature": 0.8, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "stop_token_ids": [EOS], "ignore_eos": True, "logprobs": 0, "return_token_ids": True,
    }  # fmt: skip


def test_a_server_that_forgets_the_adapter_is_found_out_once_the_policy_has_moved(tmp_path: Path) -> None:
    with running(FakeVllm(policy(), ignores_adapters=True)) as url, pytest.raises(GenerationFailed) as failed:
        trained(url, tmp_path)
    assert "answers as the base model and not as the adapter" in str(failed.value)


def test_log_probs_of_another_temperature_are_found_out_at_once(tmp_path: Path) -> None:
    with (
        running(FakeVllm(policy(), temperature_of_log_probs=1.2)) as url,
        pytest.raises(GenerationFailed, match="processed_logprobs"),
    ):
        trained(url, tmp_path)


def broken(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Any], Any]:
    def after(told: Any) -> Any:
        change(told["choices"])
        return told

    return after


def cut(choices: list[dict[str, Any]]) -> None:
    """An answer that ends, without EOS, before its limit."""
    for choice in choices:
        choice["token_ids"] = [5]
        choice["logprobs"]["token_logprobs"] = [-1.0]


def set_to(**changes: Any) -> Callable[[Any], Any]:
    return broken(lambda choices: [choice.update(changes) for choice in choices] and None)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (lambda _: b"tea?", "gave no completions: JSONDecodeError"),
        (lambda _: {"choices": 7}, "gave no completions: TypeError"),
        (broken(lambda choices: choices.pop() and None), "gave 7 answers where 8 were asked for"),
        (broken(lambda choices: choices.append(choices[0])), "gave 9 answers where 8"),
        (set_to(token_ids=None), "gave no token ids with log-probs"),
        (set_to(logprobs=None), "gave no token ids with log-probs"),
        (set_to(token_ids=[]), "gave 0 tokens with"),
        (set_to(token_ids=[5] * 9, logprobs={"token_logprobs": [-1.0] * 9}), "gave 9 tokens with 9 log-probs"),
        (set_to(token_ids=[5, EOS], logprobs={"token_logprobs": [-1.0]}), "gave 2 tokens with 1 log-probs"),
        (set_to(token_ids=[24] * 8, logprobs={"token_logprobs": [-1.0] * 8}), "none of this base model's 24"),
        (set_to(token_ids=[True] * 8, logprobs={"token_logprobs": [-1.0] * 8}), "none of this base model's 24"),
        (set_to(token_ids=[5] * 8, logprobs={"token_logprobs": [float("nan")] * 8}), "a log-prob that is none"),
        (set_to(token_ids=[5] * 8, logprobs={"token_logprobs": [0.5] * 8}), "a log-prob that is none"),
        (broken(cut), "ended an answer elsewhere than at token 2 or 8 tokens"),
        (set_to(token_ids=[EOS] * 8, logprobs={"token_logprobs": [-1.0] * 8}), "ended an answer elsewhere"),
        (lambda _: b"x" * 1_000_000, "gave more than"),
    ],
)
def test_what_is_no_answer_of_the_policy_is_refused(after: Callable[[Any], Any], why: str, tmp_path: Path) -> None:
    with running(FakeVllm(policy(), after=after)) as url, pytest.raises(GenerationFailed, match=why):
        trained(url, tmp_path, replace(SMALL, iterations=1))


def once(path: str, reply: Reply) -> Callable[[str, int], Reply | None]:
    return lambda asked, number: reply if (asked, number) == (path, 0) else None


@pytest.mark.parametrize("path", [LOAD, COMPLETIONS])
@pytest.mark.parametrize("reply", [(503, "busy"), (0, None)])  # (0: done, and the reply is lost)
def test_a_request_that_failed_or_whose_reply_was_lost_is_sent_again(path: str, reply: Reply, tmp_path: Path) -> None:
    server = FakeVllm(policy(), before=once(path, reply))
    with running(server) as url:
        _, report = trained(url, tmp_path, replace(SMALL, iterations=1), tries=2)
    assert len(report.steps) == 1
    assert server.counts[path] == {LOAD: 2, COMPLETIONS: 5}[path]


@pytest.mark.parametrize("path", [LOAD, COMPLETIONS])
def test_a_server_that_hangs_is_left_in_time(path: str, tmp_path: Path) -> None:
    server = FakeVllm(policy(), before=lambda asked, _: (-1, None) if asked == path else None)
    with running(server) as url, pytest.raises(GenerationFailed, match=r"did not answer /v1/\w+ in 2 tries"):
        trained(url, tmp_path, seconds=0.6, tries=2)


@pytest.mark.parametrize(
    ("path", "reply", "why"),
    [
        (LOAD, (404, "Not Found"), "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (LOAD, (401, "who are you"), "status 401: .*who are you"),
        (COMPLETIONS, (400, "too long"), "status 400: .*too long"),
        (COMPLETIONS, (307, ""), "status 307"),
        (COMPLETIONS, (500, "engine died"), "did not answer /v1/completions in 1 tries .*engine died"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(path: str, reply: Reply, why: str, tmp_path: Path) -> None:
    with running(FakeVllm(policy(), before=once(path, reply))) as url, pytest.raises(GenerationFailed, match=why):
        trained(url, tmp_path)


def test_an_adapter_that_can_not_be_unloaded_stops_nothing(tmp_path: Path) -> None:
    server = FakeVllm(policy(), before=lambda path, _: (500, "no") if path == UNLOAD else None)
    with running(server) as url:
        _, report = trained(url, tmp_path)
    assert len(report.steps) == 3


def test_agreement_is_a_mean_distance_and_a_truncated_ratio() -> None:
    server_NT = torch.tensor([[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]])
    trainer_NT = torch.tensor([[-0.5, -2.5, 9.0], [-1.0, 9.0, 9.0]])
    base_NT = torch.tensor([[-1.0, -2.3, 9.0], [-3.0, 9.0, 9.0]])
    mask_NT = torch.tensor([[True, True, False], [True, False, False]])
    found = agreement(server_NT, trainer_NT, base_NT, mask_NT, cap=2.0)
    assert found.mismatch == pytest.approx((0.5 + 0.5 + 2.0) / 3)
    assert found.from_base == pytest.approx(0.1)
    expected = torch.tensor([[math.exp(0.5), math.exp(-0.5), 0.0], [2.0, 0.0, 0.0]])
    torch.testing.assert_close(found.weights_NT, expected)
    assert found.weight == pytest.approx((math.exp(0.5) + math.exp(-0.5) + 2.0) / 3)


@pytest.mark.parametrize(
    ("mismatch", "from_base", "why"),
    [
        (0.02, 0.5, None),
        (0.02, 0.015, None),  # a policy that has hardly moved: nothing can be told from that
        (0.009, 0.001, None),  # rounding
        (0.04, 0.01, "as the base model"),
        (0.11, 0.5, "0.110 nats a token from the trainer's and 0.1 are allowed"),
        (float("nan"), float("nan"), "nan nats a token"),
    ],
)
def test_a_server_is_refused_that_is_nearer_to_the_base_or_too_far_away(
    mismatch: float, from_base: float, why: str | None
) -> None:
    found = Agreement(mismatch, from_base, torch.zeros(1, 1), 1.0)
    if why is None:
        require_agreement(found, 0.1)
        return
    with pytest.raises(GenerationFailed, match=why):
        require_agreement(found, 0.1)


def test_what_a_token_weighs_weighs_its_whole_loss(tmp_path: Path) -> None:
    """Weights of 0 leave the adapter where it is; with Adam's steps otherwise it moves."""
    moved: list[bool] = []
    for weight in (0.0, 1.0):
        made = policy()
        before = [p.detach().clone() for p in made.adapter_parameters()]
        with running(FakeVllm(policy())) as url:
            batch = collect(
                made, reward, PROMPTS, SMALL, torch.Generator().manual_seed(0), drawing=client(url, tmp_path)
            )
        assert batch.agreement is not None
        weights_NT = torch.full_like(batch.agreement.weights_NT, weight)
        batch = replace(batch, agreement=replace(batch.agreement, weights_NT=weights_NT))
        Trainer(made, SMALL, Overseers()).update(batch, 0, 0.05, torch.Generator().manual_seed(0))
        moved.append(not all(torch.equal(a, b) for a, b in zip(before, made.adapter_parameters(), strict=True)))
    assert moved == [False, True]


def test_settings_name_the_server_and_a_version_asks_for_the_same_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="THUMBWHEEL_GENERATION=vllm needs THUMBWHEEL_VLLM_URL"):
        TrainerSettings(generation="vllm")
    with serving(TrainerSettings(vllm_url="http://there:8000")) as server:
        assert server is None
    given = TrainerSettings(generation="vllm", vllm_url="http://there:8000/v1?key=hidden", data=tmp_path)
    with same_server(given, None) as server:
        assert server is None
    with same_server(given, "http://there:8000/v1") as server:
        assert server is not None and server.shown == "http://there:8000/v1"
    with pytest.raises(SettingsError, match="drawn by http://elsewhere"), same_server(given, "http://elsewhere/"):
        pass
    with (
        pytest.raises(SettingsError, match=r"no user and password.*THUMBWHEEL_VLLM_TOKEN_FILE"),
        serving(given.model_copy(update={"vllm_url": "http://me:secret@there/"})),
    ):
        pass
