"""What a stage has used, where several processes share it."""

from torch import Tensor

from schemas.cycles import Stage
from trainer.core.budget import Budget
from trainer.core.parallel import ALONE, Alone
from trainer.stages import Stages


class Others(Alone):
    """Two processes, of which the other one's number is known."""

    size = 2

    def __init__(self, rank: int, other: float) -> None:
        self.rank, self._other = rank, other
        self.given: list[float] = []

    def sum(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            self.given += tensor.tolist()
            tensor += self._other


def used(peers: Alone) -> float:
    """What is counted for a stage in which this process was busy for 3 seconds."""
    busy = 10.0
    made = Stages("c1", budget=Budget(max_seconds=1e9, max_tokens=10**9), processor=lambda: busy)
    with made.stage(Stage.POLICY):
        busy = 13.0
        made.shared(peers)
    return made.spent[Stage.POLICY].cpu_seconds


def test_the_first_process_counts_the_processor_time_of_all_and_the_others_tell_theirs() -> None:
    leader, helper = Others(0, 7.5), Others(1, 0.0)
    assert (used(ALONE), used(leader), used(helper)) == (3.0, 10.5, 3.0)
    assert (leader.given, helper.given) == ([0.0], [3.0])
