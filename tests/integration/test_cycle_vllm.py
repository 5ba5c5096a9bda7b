"""Whole cycles whose answers a vLLM server draws: its version, and no version where the server does not help."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from schemas.cycles import CycleStatus
from tests.integration import trainer_lake as lake
from tests.unit.trainer.adapters.vllm_server import FakeVllm, running
from trainer import app
from trainer.adapters.events import MemoryEvents
from trainer.adapters.policies import LoraSettings, attach_policy, load_base
from trainer.adapters.registry import Registry
from trainer.cycle import CycleRunner
from trainer.records import Outcome


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lake.tiny_base(tmp_path_factory.mktemp("base"))


def run(data: Path, base: Path, url: str, **changes: Any) -> Outcome:
    settings = lake.settings(data, base, generation="vllm", vllm_url=url, score_responses=0, seed=0, **changes)
    return CycleRunner(settings, MemoryEvents(), load_base=app.loader(settings)).run()


def test_a_version_from_a_servers_answers_has_its_address_and_agreement_in_the_record(
    tmp_path: Path, base: Path
) -> None:
    data = lake.fill(tmp_path / "data")
    lm = load_base(str(base), dtype="float32", device="cpu")
    server = FakeVllm(attach_policy(lm, LoraSettings(top_share=1.0)))
    with running(server) as url:
        outcome = run(data, base, url)
        assert (outcome.status, outcome.version) == (CycleStatus.FINISHED, "v1"), outcome.reason
        assert Registry(data / "registry").record("v1").config.generation == url
    lines = (data / "cycles" / outcome.cycle_id / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["mismatch"] for line in lines] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert len(server.loaded) == 3  # two iterations and the last look
    assert server.adapters == {} and list((data / "vllm-adapters").iterdir()) == []


def test_a_cycle_whose_server_is_away_fails_without_a_version_and_is_tried_again(tmp_path: Path, base: Path) -> None:
    data = lake.fill(tmp_path / "data")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        outcome = run(data, base, url, vllm_seconds=1.0, vllm_retries=0)
    assert outcome.status is CycleStatus.FAILED and outcome.version is None and not outcome.conclusive
    assert "did not answer /v1/load_lora_adapter" in outcome.reason and "ConnectionRefusedError" in outcome.reason
    assert not list((data / "registry").glob("v*"))
