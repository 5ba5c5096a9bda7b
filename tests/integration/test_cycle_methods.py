"""Whole cycles on Delta tables by DPO and KTO, and with rewards of one's own: the same gates, records, repetition."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from schemas import tables
from schemas.cycles import CycleStatus
from schemas.errors import SettingsError
from tests.integration import trainer_lake as lake
from trainer import app
from trainer.adapters.events import MemoryEvents
from trainer.adapters.registry import Registry
from trainer.cycle import CycleRunner
from trainer.records import Outcome
from trainer.settings import TrainerSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lake.tiny_base(tmp_path_factory.mktemp("base"))


def run(settings: TrainerSettings) -> Outcome:
    return CycleRunner(settings, MemoryEvents(), load_base=app.loader(settings)).run()


def quick(data: Path, base: Path, **changes: Any) -> TrainerSettings:
    return lake.settings(data, base, direct={"epochs": 1, "checks": 2, "look_prompts": 4}, **changes)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_cycle_by_another_method_passes_the_same_gates_and_can_be_made_again(
    method: str, tmp_path: Path, base: Path
) -> None:
    settings = quick(lake.fill(tmp_path / "data"), base, method=method)
    outcome = run(settings)
    assert (outcome.status, outcome.version) == (CycleStatus.FINISHED, "v1")
    registry = Registry(settings.registry)
    record = registry.record("v1")
    assert record.config.method == method and record.metrics["ppo_steps"] == outcome.metrics["ppo_steps"] > 0
    assert {"finite", "changed", "reward_model", "judge", "win_rate", "kl", "length"} <= {g.name for g in record.gates}
    card = (registry.folder("v1") / "README.md").read_text()
    assert f"Trained by {method.upper()}" in card and f"tags: [thumbwheel, {method}, lora]" in card
    learned = {e.id for e in registry.evidence("v1") or [] if e.set == "train" and e.kind != "prompt"}
    assert len(learned) == record.labels["train"]
    lines = (settings.cycles / outcome.cycle_id / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["kl"] == pytest.approx(0.0, abs=1e-5) and json.loads(lines[-1])["trained_tokens"] > 0
    assert app.run_reproduce(settings, "v1") == (record.adapter_sha256, record.adapter_sha256)


def test_dpo_without_pairs_fails_and_names_the_other_methods(tmp_path: Path, base: Path) -> None:
    lake.write(tmp_path / "data", tables.RATINGS, [lake.rating(n) for n in range(200)])
    # Each of these raters says the same of all answers: the reward model would leave them out.
    outcome = run(quick(tmp_path / "data", base, method="dpo", reward={"one_sided_raters": 1000, "heads": 2}))
    assert outcome.status is CycleStatus.FAILED
    assert "there are 0 pairs to train on by DPO and 20 are needed" in outcome.reason


@pytest.mark.parametrize("method", ["ppo", "dpo"])
def test_a_function_of_ones_own_is_part_of_the_reward_and_of_the_record(
    method: str, tmp_path: Path, base: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def short(prompts, completions):\n    return [-float(len(c)) for c in completions]\n")
    data, own = lake.fill(tmp_path / "data"), f"{mine}:short"
    settings = quick(data, base, method=method, reward_function=own, reward_ensemble_weight=0.0)
    outcome = run(settings)
    assert (outcome.status, outcome.reason) == (CycleStatus.FINISHED, "")
    record = Registry(settings.registry).record("v1")
    extra = record.config.extra_reward
    assert extra is not None and (extra.kind, extra.name, extra.ensemble_weight) == ("function", own, 0.0)
    assert record.metrics["reward_share_thumbs"] == 0.0
    assert f"the function {own}" in (Registry(settings.registry).folder("v1") / "README.md").read_text()
    assert app.run_reproduce(settings, "v1") == (record.adapter_sha256, record.adapter_sha256)
    with pytest.raises(SettingsError, match=r"was trained with the function .* name no reward of one's own"):
        app.run_reproduce(quick(data, base, method=method), "v1")


def test_an_endpoint_that_hangs_fails_the_cycle_and_no_version_comes_of_it(tmp_path: Path, base: Path) -> None:
    data = lake.fill(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/score"
        settings = quick(data, base, reward_endpoint=address, reward_endpoint_seconds=0.3, reward_endpoint_retries=1)
        outcome = run(settings)
    assert outcome.status is CycleStatus.FAILED
    assert f"the reward endpoint {address} gave no rewards in 2 tries within 0.3 s" in outcome.reason
    assert not Registry(settings.registry).versions()
