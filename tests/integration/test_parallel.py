"""Trainings that several processes share come to what one process comes to; failures end a job and not the next."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.integration.parallel_worker import CONFIGS

CLOSE = {"abs": 2e-3, "rel": 1e-3}
"""For figures; values of the thousands (a sum of squares) are compared by their share."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker's folder, once it has trained."""
    folder = tmp_path_factory.mktemp("parallel")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "tests.integration.parallel_worker", str(folder)]
    done = subprocess.run(program, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def trained(folder: Path, name: str, size: int, rank: int = 0) -> dict[str, Any]:
    return torch.load(folder / f"{name}-{size}-{rank}.pt")


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_several_processes_come_to_the_adapter_and_the_figures_of_one(made: Path, name: str, size: int) -> None:
    alone, together = trained(made, name, 1), trained(made, name, size)
    for a, b in zip(alone["parameters"], together["parameters"], strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)
    assert together["kept"] == alone["kept"]
    assert len(together["steps"]) == len(alone["steps"])
    for one, other in zip(alone["steps"], together["steps"], strict=True):
        for figure in ("tokens", "optimizer_steps", "length", "finished"):
            assert other[figure] == one[figure]
        for figure in ("reward", "kl", "beta", "entropy", "clip_fraction", "update_kl", "value_loss", "grad_norm"):
            assert other[figure] == pytest.approx(one[figure], **CLOSE), figure
        assert other["first_ratio"] == pytest.approx(1.0, abs=1e-5)
        assert other["judged"] == pytest.approx(one["judged"], **CLOSE)
        assert other["costs"] == pytest.approx(one["costs"], **CLOSE)
        assert other["multipliers"] == pytest.approx(one["multipliers"], **CLOSE)


def test_the_trainings_compared_did_move_and_had_limits_to_keep(made: Path) -> None:
    first, last = trained(made, "shared", 1)["steps"][0], trained(made, "shared", 1)["steps"][-1]
    assert abs(first["kl"] - last["kl"]) > 0.1
    assert last["multipliers"]["kl_base"] > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_all_processes_keep_the_same_bits(made: Path, name: str) -> None:
    for size in (2, 3):
        first = trained(made, name, size)
        for rank in range(1, size):
            other = trained(made, name, size, rank)
            assert other["steps"] == first["steps"]
            assert all(torch.equal(a, b) for a, b in zip(first["parameters"], other["parameters"], strict=True))


def test_a_cycle_of_two_processes_makes_the_version_that_one_makes(made: Path) -> None:
    alone, together = (made / f"data-{size}" / "registry" / "v1" for size in (1, 2))
    adapters = [load_file(folder / "adapter_model.safetensors") for folder in (alone, together)]
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], tensor, atol=1e-4, rtol=1e-4)
    records = [json.loads((folder / "record.json").read_text()) for folder in (alone, together)]
    assert [record["config"]["processes"] for record in records] == [1, 2]
    assert [record["content_hash"] for record in records] == [records[0]["content_hash"]] * 2
    assert [g["passed"] for g in records[0]["gates"]] == [g["passed"] for g in records[1]["gates"]]


def test_a_process_that_fails_ends_its_job_with_its_reason_and_helps_with_the_next(made: Path) -> None:
    said = torch.load(made / "said.pt")
    assert said == ["process 1 of 2 failed: JSONDecodeError: Expecting value: line 1 column 1 (char 0)"] * 2


def test_torchrun_starts_them_and_ends_them_all_when_one_dies(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = [*launch, "-m", "tests.integration.torchrun_worker", str(tmp_path)]
    done = subprocess.run(program, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sum-0", "sum-1"], done.stderr
    assert [(tmp_path / f"sum-{rank}").read_text() for rank in (0, 1)] == ["1.0", "1.0"]
    assert done.returncode != 0
