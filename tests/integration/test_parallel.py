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
from tests.integration.parallel_worker import CONFIGS, RUNS, SIZES

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


def trained(folder: Path, name: str, kind: str, rank: int = 0) -> dict[str, Any]:
    return torch.load(folder / f"{name}-{kind}-{rank}.pt")


@pytest.mark.parametrize(("name", "kind"), RUNS)
def test_several_processes_come_to_the_adapter_and_the_figures_of_one(made: Path, name: str, kind: str) -> None:
    alone, together = trained(made, name, "1"), trained(made, name, kind)
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


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trainings_compared_did_move_and_had_limits_to_keep(made: Path, name: str) -> None:
    first, last = trained(made, name, "1")["steps"][0], trained(made, name, "1")["steps"][-1]
    assert abs(first["kl"] - last["kl"]) > 0.01
    assert last["multipliers"]["kl_base"] > 0.1


@pytest.mark.parametrize(("name", "kind"), RUNS)
def test_all_processes_keep_the_same_bits(made: Path, name: str, kind: str) -> None:
    first = trained(made, name, kind)
    for rank in range(1, SIZES[kind]):
        other = trained(made, name, kind, rank)
        assert other["steps"] == first["steps"]
        assert all(torch.equal(a, b) for a, b in zip(first["parameters"], other["parameters"], strict=True))


@pytest.mark.parametrize("kind", SIZES)
def test_they_share_what_is_to_be_read_and_it_has_the_bits_of_one_process(made: Path, kind: str) -> None:
    alone, first = (trained(made, "features", which) for which in ("1", kind))
    assert first["read"] == alone["read"] and first["kept"] == alone["kept"] > 0
    assert all(torch.equal(a, b) for a, b in zip(alone["features"], first["features"], strict=True))
    for rank in range(1, SIZES[kind]):
        empty, more = trained(made, "features", kind, rank)["features"]
        assert torch.equal(empty, first["features"][0])  # nothing was in the cache, so all was read and shared
        assert torch.equal(more[9:], first["features"][1][9:]) and not more[:9].any()


def test_a_base_that_is_cut_up_lies_in_parts_and_is_still_entered_above_its_lower_half(made: Path) -> None:
    alone = trained(made, "separate", "1")
    parts = [trained(made, "separate", "cut", rank) for rank in (0, 1)]
    assert [part["split"] for part in (alone, *parts)] == [1, 1, 1]
    # 24 x 32 embeddings and as many outputs and a norm of 32 stay whole; the two blocks of 7,744 are halved.
    assert alone["weights_here"] == 2 * 24 * 32 + 32 + 2 * 7744
    assert [part["weights_here"] for part in parts] == [2 * 24 * 32 + 32 + 7744] * 2


def test_a_cycle_of_two_processes_that_hold_the_base_in_parts_and_were_killed_makes_the_version_of_one(
    made: Path,
) -> None:
    alone, together = (made / f"data-{kind}" / "registry" / "v1" for kind in ("1", "cut"))
    adapters = [load_file(folder / "adapter_model.safetensors") for folder in (alone, together)]
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], tensor, atol=1e-4, rtol=1e-4)
    records = [json.loads((folder / "record.json").read_text()) for folder in (alone, together)]
    assert [record["config"]["processes"] for record in records] == [1, 2]
    assert [record["config"]["shard"] for record in records] == ["none", "full"]
    assert [record["content_hash"] for record in records] == [records[0]["content_hash"]] * 2
    assert [g["passed"] for g in records[0]["gates"]] == [g["passed"] for g in records[1]["gates"]]
    one, other = (record["evaluation"] for record in records)
    assert other["win_rate_vs_parent"] == one["win_rate_vs_parent"] and other["win_certainty"] == one["win_certainty"]
    assert [s["after"] for s in other["samples"]] == [s["after"] for s in one["samples"]]
    assert other["kl"] == pytest.approx(one["kl"], **CLOSE)
    for a, b in zip(one["probes"], other["probes"], strict=True):
        assert (b["name"], b["n"]) == (a["name"], a["n"])
        assert [b[who] for who in ("new", "parent")] == pytest.approx([a[who] for who in ("new", "parent")], **CLOSE)
    assert one["probes_asked"] == other["probes_asked"] > 0
    (outcome,) = (made / "data-cut" / "cycles").glob("*/outcome.json")
    assert json.loads(outcome.read_text())["tries"] == 2


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
