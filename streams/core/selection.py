"""Which comparisons are worth a human's look: those that the reward ensemble is least sure of, and a random share.

Uncertainty is BALD (Houlsby et al. 2011, https://arxiv.org/abs/1112.5745, equation 2): the mutual information
between the preference and the choice of a head, H(mean p) - mean H(p). It is high where heads that are each sure
disagree, and low where all agree that it is a toss-up, which no label would settle. Plain variance of the logits
was worse than random in simulation, because it also grows where every head is certain of the same side.

The random share keeps estimates over labels honest ("random is hard to beat" with strong models, too).

A shadow answer and the one that was served in its place come first, up to a share: no user can ever thumb the shadow
one, so labels are the only way to learn whether the version that is tried out is better.

Only answers whose consent covers labeling are shown to people, and, as the verdict is learned from, training too. The
verdict itself is the labeler's own.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from schemas.consent import EVERY_PURPOSE, common, permits
from schemas.ids import content_id
from schemas.labels import Candidate, LabelTask
from schemas.tables import ResponseRow, ScoreRow

MAX_ANSWERS_PER_PROMPT = 32
"""So many scored answers of one prompt are compared with each other: a popular prompt must not cost quadratic work."""


@dataclass(frozen=True, slots=True)
class SelectionPlan:
    """How many tasks a scored batch yields, how many of them at random, and the seed of every draw."""

    tasks_per_batch: int = 12
    random_share: float = 0.25
    seed: int = 0
    shadow_share: float = 0.5
    """At most this share of the places that are not random goes first to answers and their shadows."""
    gold_share: float = 0.05
    """So many gold questions come to the tasks, as a share of their number (`streams.core.gold`)."""

    @property
    def at_random(self) -> int:
        return round(self.tasks_per_batch * self.random_share)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt that could be put to a labeler."""

    task_id: str
    first: ResponseRow
    second: ResponseRow
    uncertainty: float
    reward_model: str

    @property
    def shadows(self) -> bool:
        """Whether one was made only to be compared with the other."""
        return self.first.shadow_of == self.second.response_id or self.second.shadow_of == self.first.response_id


def select(
    scores: Iterable[ScoreRow], responses: Mapping[str, ResponseRow], *, known: Collection[str], plan: SelectionPlan
) -> list[LabelTask]:
    """The label tasks of one reward model's scores. `known` are the task ids already queued or labelled.

    The uncertain arm is the top of a ranking (answers with their shadows first), so its `selection_probability` is 1;
    the random arm is a uniform draw without replacement from the rest, so there it is the number drawn over the number
    left.
    """
    ranked = [c for c in comparisons(scores, responses) if c.task_id not in known]
    ranked.sort(key=lambda c: (-c.uncertainty, c.task_id))
    cut = plan.tasks_per_batch - plan.at_random
    preferred = [c for c in ranked if c.shadows][: round(cut * plan.shadow_share)]
    chosen = {c.task_id for c in preferred}
    others = [c for c in ranked if c.task_id not in chosen]
    top, rest = preferred + others[: cut - len(preferred)], others[cut - len(preferred) :]
    drawn = sorted(rest, key=lambda c: draw(plan.seed, c.reward_model, c.task_id))[: plan.at_random]
    share = len(drawn) / len(rest) if rest else 1.0
    uncertain = [_task(c, "uncertain", 1.0, seed=plan.seed) for c in top]
    return uncertain + [_task(c, "random", share, seed=plan.seed) for c in drawn]


def comparisons(scores: Iterable[ScoreRow], responses: Mapping[str, ResponseRow]) -> list[Comparison]:
    """Every pair of scored answers to the same prompt whose texts differ, each pair of texts once."""
    prompts: dict[str, list[ScoreRow]] = defaultdict(list)
    for score in scores:
        if score.response_id in responses and may_be_shown(responses[score.response_id]):
            prompts[score.prompt_id].append(score)
    found: dict[str, Comparison] = {}
    for group in prompts.values():
        answers = sorted(group, key=lambda s: draw(0, s.response_id))[:MAX_ANSWERS_PER_PROMPT]
        for a, b in combinations(answers, 2):
            compared = _compare(a, b, responses)
            if compared is not None:
                found.setdefault(compared.task_id, compared)
    return list(found.values())


def may_be_shown(row: ResponseRow) -> bool:
    """Whether labelers may see an answer, to teach by their verdict."""
    return not row.retracted and all(permits(row.purposes, purpose) for purpose in EVERY_PURPOSE)


def bald(scores_a_H: Sequence[float], scores_b_H: Sequence[float]) -> float:
    """Mutual information in nats between "a is preferred to b" and the head that is asked; 0 where heads agree."""
    chances = [_sigmoid(a - b) for a, b in zip(scores_a_H, scores_b_H, strict=True)]
    mean = sum(chances) / len(chances)
    information = _entropy(mean) - sum(_entropy(p) for p in chances) / len(chances)
    return max(information, 0.0)  # rounding can leave -1e-17


def task_id(prompt_id: str, texts: Iterable[str]) -> str:
    """The same for the same two texts under the same prompt, whichever answers wrote them."""
    return content_id("task", prompt_id, *sorted(texts))


def _compare(a: ScoreRow, b: ScoreRow, responses: Mapping[str, ResponseRow]) -> Comparison | None:
    first, second = sorted((responses[a.response_id], responses[b.response_id]), key=lambda r: r.response_id)
    if first.tenant != second.tenant:
        return None
    if first.completion == second.completion or len(a.head_scores) != len(b.head_scores) or not a.head_scores:
        return None
    identity = task_id(a.prompt_id, (first.completion, second.completion))
    return Comparison(identity, first, second, bald(a.head_scores, b.head_scores), a.reward_model)


def _task(compared: Comparison, reason: str, probability: float, *, seed: int) -> LabelTask:
    left, right = shuffled(_candidate(compared.first), _candidate(compared.second), compared.task_id, seed=seed)
    return LabelTask.model_validate(
        {
            "task_id": compared.task_id,
            "prompt_id": compared.first.prompt_id,
            "prompt": compared.first.prompt,
            "left": left,
            "right": right,
            "reason": reason,
            "uncertainty": compared.uncertainty,
            "selection_probability": probability,
            "reward_model": compared.reward_model,
            "purposes": common((compared.first.purposes, compared.second.purposes)),
        }
    )


def shuffled(one: Candidate, other: Candidate, task: str, *, seed: int) -> tuple[Candidate, Candidate]:
    """The sides of a task, by a draw: which answer is on which says nothing."""
    return (other, one) if draw(seed, "sides", task)[0] & 1 else (one, other)


def _candidate(row: ResponseRow) -> Candidate:
    return Candidate(completion=row.completion, response_id=row.response_id, version=row.version)


def draw(seed: int, *parts: str) -> bytes:
    """A number drawn by content and seed: a repeated batch makes the same choices."""
    return hashlib.blake2b("\0".join((str(seed), *parts)).encode(), digest_size=8).digest()


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x))


def _entropy(p: float) -> float:
    """Of a coin, in nats."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)
