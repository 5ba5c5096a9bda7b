"""How often a student's state is kept."""

from typing import cast

from trainer.core.distill import TrainState
from trainer.distill_learning import paced


def test_a_state_that_takes_long_to_write_is_written_seldom() -> None:
    now, written = 0.0, list[float]()

    def save(_: TrainState) -> None:
        nonlocal now
        written.append(now)
        now += 3.0

    keep = paced(save, clock=lambda: now)
    for _ in range(10):
        keep(cast("TrainState", None))
        now += 10.0
    # The first took from 0 to 3: sixty seconds later, at the first look from 63 on, it may be written again.
    assert written == [0.0, 63.0]
