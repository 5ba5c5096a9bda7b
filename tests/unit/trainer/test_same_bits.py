"""A base that the trainer has loaded computes the same bits again, with several threads too."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.integration import trainer_lake as lake
from trainer import app


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def gradient() -> torch.Tensor:
    """Of states that many tokens share, as answers share their prompt's: 20,000 rows gathered from 50."""
    states = torch.zeros(50, 64, requires_grad=True)
    weights = torch.rand(20_000, 64, generator=torch.Generator().manual_seed(1))
    rows = torch.randint(50, (20_000,), generator=torch.Generator().manual_seed(2))
    (states[rows] * weights).sum().backward()
    assert states.grad is not None
    return states.grad


def test_two_threads_add_gradients_in_the_same_order_each_time(tmp_path: Path) -> None:
    base = lake.tiny_base(tmp_path / "base")
    app.loader(lake.settings(tmp_path / "data", base, threads=2))()
    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(20))
