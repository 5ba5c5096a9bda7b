"""What a student is cut from and what it learns from: the choice of blocks, of answers, of prompts set aside."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from trainer.core.dataset import share_of
from trainer.core.models import Tokens


@dataclass(frozen=True)
class Lessons:
    """Answers of the teacher in the student's tokens, each with its prompt."""

    prompts: tuple[Tokens, ...]
    answers: tuple[Tokens, ...]

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.answers):
            raise ValueError(f"{len(self.prompts)} prompts for {len(self.answers)} answers: give one for each")


def spread_layers(n_layers: int, wanted: int) -> tuple[int, ...]:
    """`wanted` of `n_layers` blocks (from 0), evenly spaced with the first and the last among them.

    The first reads the embeddings and the last writes what the output matrix reads, so a student that has both begins
    nearest to its teacher (Sanh et al. 2019, 1910.01108, take every second one of BERT's). One alone is the first.
    Raises `ValueError` unless 0 < wanted < n_layers.
    """
    if not 0 < wanted < n_layers:
        raise ValueError(f"{wanted} of {n_layers} blocks can't be taken: name a number from 1 to {n_layers - 1}")
    if wanted == 1:
        return (0,)
    return tuple((2 * n * (n_layers - 1) + wanted - 1) // (2 * (wanted - 1)) for n in range(wanted))


def best_of(scores_N: Tensor, answers: Sequence[Sequence[int]], *, group: int, keep: int) -> list[int]:
    """Indices of the `keep` best distinct answers of each `group` that stands together; of equals the earlier one."""
    if len(answers) != len(scores_N) or len(answers) % group:
        raise ValueError(f"{len(scores_N)} scores and {len(answers)} answers are not whole groups of {group}")
    scores = [float(score) for score in scores_N]
    kept: list[int] = []
    for start in range(0, len(answers), group):
        ranked = sorted(range(start, start + group), key=lambda n: (-scores[n], n))
        distinct = {tuple(answers[n]): n for n in reversed(ranked)}
        kept += sorted(distinct.values(), key=ranked.index)[:keep]
    return kept


def set_aside(prompts: Sequence[object], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the prompts to train on and of those to look at, by a hash; at least one of each of two and more."""
    if len(prompts) < 2:
        raise ValueError("give two prompts at least: one to learn from and one to look at")
    order = sorted(range(len(prompts)), key=lambda n: (share_of("aside", repr(prompts[n]), seed), n))
    n_aside = min(max(1, round(len(prompts) * share)), len(prompts) - 1)
    return sorted(order[n_aside:]), sorted(order[:n_aside])
