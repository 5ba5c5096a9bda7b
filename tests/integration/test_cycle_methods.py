"""Whole cycles by DPO and KTO on Delta tables: the same gates, records and repetition as with PPO."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas import tables
from schemas.cycles import CycleStatus
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
    assert [g.name for g in record.gates] == ["finite", "reward_model", "judge", "win_rate", "kl", "length"]
    card = (registry.folder("v1") / "README.md").read_text()
    assert f"trained by {method.upper()}" in card and f"tags: [thumbwheel, {method}, lora]" in card
    learned = {e.id for e in registry.evidence("v1") or [] if e.set == "train" and e.kind != "prompt"}
    assert len(learned) == record.labels["train"]
    lines = (settings.cycles / outcome.cycle_id / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["kl"] == pytest.approx(0.0, abs=1e-5) and json.loads(lines[-1])["trained_tokens"] > 0
    assert app.run_reproduce(settings, "v1") == (record.adapter_sha256, record.adapter_sha256)


def test_dpo_without_pairs_fails_and_names_the_other_methods(tmp_path: Path, base: Path) -> None:
    lake.write(tmp_path / "data", tables.RATINGS, [lake.rating(n) for n in range(200)])
    outcome = run(quick(tmp_path / "data", base, method="dpo"))
    assert outcome.status is CycleStatus.FAILED
    assert "there are 0 pairs to train on by DPO and 20 are needed" in outcome.reason
