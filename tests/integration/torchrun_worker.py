"""What torchrun starts in a test: one job that all do, and one in which a process dies."""

import os
import sys
from pathlib import Path

import torch

from trainer.adapters.processes import Group, Processes


def work(group: Group, told: bytes) -> None:
    """Sum the ranks; a process that is told to die does."""
    total = torch.tensor([float(group.rank)])
    group.sum(total)
    group.told(lambda: None)
    if told == b"die":
        os._exit(3)
    (Path(sys.argv[1]) / f"{told.decode()}-{group.rank}").write_text(str(float(total)))


def main() -> None:
    processes = Processes.launched(seconds=60.0, gpus=False)
    assert processes is not None
    if processes.rank:
        processes.follow(work, lambda: False)
        return
    with processes.job(b"sum") as group:
        work(group, b"sum")
    with processes.job(b"die") as group:
        group.sum(torch.zeros(1))
        group.told(lambda: None)
        group.sum(torch.zeros(1))  # for which the other one is no longer there
    (Path(sys.argv[1]) / "survived").touch()


if __name__ == "__main__":
    main()
