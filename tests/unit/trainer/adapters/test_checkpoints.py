"""What a cycle keeps for the process that may have to go on with it."""

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from schemas.cycles import Stage
from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.trees import from_file, to_bytes
from trainer.core.budget import Spent
from trainer.core.estimates import Estimate
from trainer.core.reward import RewardEnsemble, RewardSignal
from trainer.records import Interval


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Writing more to a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def round_trip(value: object, folder: Path) -> object:
    file = folder / "value.safetensors"
    file.write_bytes(to_bytes(value))
    return from_file(str(file))


def test_values_of_every_kind_come_back_as_what_they_were(tmp_path: Path) -> None:
    value = (
        Estimate(0.1 + 0.2, 1e-300, 1.0, 7),
        Interval(mean=0.5, low=float("-inf"), high=1.0, n=3),
        {("a", 1): [True, None, "text"], "b": Stage.PIN.value},
    )
    assert round_trip(value, tmp_path) == value


def test_a_figure_that_is_no_number_comes_back(tmp_path: Path) -> None:
    found = round_trip((float("nan"), 1.5), tmp_path)
    assert isinstance(found, tuple) and found[0] != found[0] and found[1] == 1.5


def test_a_reward_signal_scores_to_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ensemble = RewardEnsemble(torch.randn(5), torch.rand(5), torch.randn(5, 3), torch.randn(3))
    signal = RewardSignal(ensemble, 0.1, 0.7, 0.5, 3.0)
    again = round_trip(signal, tmp_path)
    features_NF = torch.randn(4, 5)
    assert isinstance(again, RewardSignal) and torch.equal(again(features_NF), signal(features_NF))


def test_empty_tensors_and_parts_of_others_are_kept(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    found = round_trip([torch.zeros(0, 2), whole[:, 1], whole], tmp_path)
    assert isinstance(found, list)
    assert found[0].shape == (0, 2) and torch.equal(found[1], torch.tensor([1.0, 4.0])) and torch.equal(found[2], whole)


def test_only_the_trainers_own_classes_are_kept_and_made(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="can't be kept"):
        to_bytes(tmp_path)
    with pytest.raises(TypeError, match="can't be kept"):
        to_bytes(torch.nn.Linear(1, 1))
    forged = to_bytes(Estimate(0.5, 0.4, 0.6, 3)).replace(
        b"trainer.core.estimates:Estimate", b"subprocess.Popen_not:aclass.for"
    )
    (tmp_path / "forged").write_bytes(forged)
    with pytest.raises(ValueError, match="no class of the trainer"):
        from_file(str(tmp_path / "forged"))


def test_of_a_function_of_the_users_the_name_is_kept_and_the_process_brings_it_again(tmp_path: Path) -> None:
    keep = Checkpoints(tmp_path)
    with pytest.raises(TypeError, match="can't be kept"):
        keep.save("reward", (len, 1.0))
    keep.live["own"] = len
    keep.save("reward", (len, 1.0))
    again = Checkpoints(tmp_path)
    again.live["own"] = max
    assert again.load("reward") == (max, 1.0)
    assert Checkpoints(tmp_path).load("reward") is None


def test_what_is_finished_is_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 42

    assert [Checkpoints(tmp_path / "state").result("answer", make) for _ in range(2)] == [42, 42]
    assert made == [1]


def test_a_broken_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep = Checkpoints(tmp_path)
    keep.save("answer", 42)
    (tmp_path / "answer.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with caplog.at_level(logging.WARNING):
        assert keep.result("answer", lambda: 43) == 43
    assert "a part of the cycle is done again" in caplog.text


def test_a_full_disk_costs_the_checkpoint_and_not_the_cycle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep = Checkpoints(tmp_path)
    assert keep.save("weights", torch.zeros(10))
    with no_file_above(2048), caplog.at_level(logging.WARNING):
        assert not keep.save("weights", torch.ones(1000))
        assert torch.equal(keep.result("more", lambda: torch.ones(1000)), torch.ones(1000))
    assert "the cycle goes on without a checkpoint" in caplog.text
    assert sorted(f.name for f in tmp_path.iterdir()) == ["spent.json", "weights.safetensors"]
    assert torch.equal(keep.result("weights", lambda: torch.ones(1)), torch.zeros(10))


def test_what_was_used_is_kept_beside_it(tmp_path: Path) -> None:
    used = {Stage.PIN: Spent(1.5, 0, 0, 1.0, 0), Stage.POLICY: Spent(3.0, 10, 20)}
    Checkpoints(tmp_path, usage=lambda: used).save("answer", 42)
    assert Checkpoints(tmp_path).spent() == used


def test_now_and_then_is_at_most_once_in_the_seconds_that_were_set(tmp_path: Path) -> None:
    times = iter([0.0, 0.0, 4.9, 5.0, 5.0])
    keep = Checkpoints(tmp_path, seconds=5.0, clock=lambda: next(times))
    for value in (1, 2, 3):
        keep.save_now_and_then("answer", value)
    assert keep.load("answer") == 3
    (tmp_path / "answer.safetensors").unlink()


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    keep = Checkpoints(None)
    assert (keep.save("answer", 42), keep.load("answer"), keep.spent(), keep.result("x", lambda: 5)) == (
        False, None, {}, 5,
    )  # fmt: skip
