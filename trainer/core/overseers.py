"""What watches a training beside the reward: the judge, the costs with their limits, and demonstrations to stay near.

    features of the answers ─► safety cost, judge's score                    (one look by the base: already there)
    answers ─► log-probs under the parent's adapter ─► KL to what is served  (one more pass; none where it is the base)
    lengths ─► drift from the parent's mean length
    answers ─► those that are given to another prompt as well: a reward for one sentence ends in that sentence for all

Shapes: N answers, T tokens, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.core.constraints import Limit, Multiplier
from trainer.core.models import Policy
from trainer.core.packing import group_answers, in_step, micro_batches
from trainer.core.parallel import ALONE, Peers, own_groups
from trainer.core.parents import Parent, token_log_probs
from trainer.core.rollout import Rollouts

KL_BASE, KL_PARENT, SAFETY, LENGTH, SAMENESS = "kl_base", "kl_parent", "safety", "length", "sameness"
"""The names of the limits, in events, records and logs."""

Scores = Callable[[Tensor], Tensor]
"""Features N,F to one number N each."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of one training. None: no such limit."""

    kl_base: float
    """Nats an answer against the frozen base, which never moves: small steps can't add up to a long way."""
    kl_parent: float | None = None
    """Nats an answer against the version that is served."""
    safety: float | None = None
    """Mean cost of an answer, between 0 and 1."""
    length: float | None = None
    """Share by which the mean length may differ from the parent's."""
    sameness: float | None = None
    """Share of answers that are, token by token, also given to another prompt of the batch."""

    def as_limits(self) -> tuple[Limit, ...]:
        """Each with the scale that its multiplier counts in: the budget for KL, a tenth of all for the costs."""
        found = [Limit(KL_BASE, self.kl_base, self.kl_base)]
        if self.kl_parent is not None:
            found.append(Limit(KL_PARENT, self.kl_parent, self.kl_parent))
        if self.safety is not None:
            found.append(Limit(SAFETY, self.safety, 0.1))
        if self.length is not None:
            found.append(Limit(LENGTH, self.length, self.length))
        if self.sameness is not None:
            found.append(Limit(SAMENESS, self.sameness, 0.1))
        return tuple(found)


@dataclass(frozen=True)
class Demonstration:
    """An answer that somebody wrote, as token ids with EOS: what the policy should not lose the hang of."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Overseers:
    """Who watches. Everything is optional; `parent` and `parent_length` go together with the limits that need them."""

    judge: Scores | None = None
    safety: Scores | None = None
    safety_before: float = 0.0
    """The parent's mean safety cost; the limit counts from it."""
    parent: Parent | None = None
    """None where the parent is the base: the limit against the base says it all."""
    parent_length: float | None = None
    """Mean tokens of one of the parent's answers."""
    parent_sameness: float | None = None
    """Share of the parent's answers that it gives to another prompt as well; its limit counts from it."""
    demonstrations: Sequence[Demonstration] = field(default_factory=tuple)


@dataclass(frozen=True)
class Costs:
    """What one batch of answers cost: `means` by name, and where each token or answer has its part in it."""

    per_token: Mapping[str, Tensor]
    """Name to N,T; zero beyond the mask."""
    per_answer: Mapping[str, Tensor]
    """Name to N."""
    means: Mapping[str, float]


def costs_of(
    policy: Policy, rollouts: Rollouts, log_ratio_NT: Tensor, features_NF: Tensor, overseers: Overseers,
    *, temperature: float, max_tokens: int, peers: Peers = ALONE,
) -> Costs:  # fmt: skip
    """All costs of a batch; `log_ratio_NT` is that to the base."""
    per_token = {KL_BASE: log_ratio_NT}
    per_answer: dict[str, Tensor] = {}
    means = {KL_BASE: float(log_ratio_NT.sum(1).mean())}
    if overseers.parent is not None:
        with overseers.parent.active():
            theirs_NT = log_probs_of(policy, rollouts, temperature=temperature, max_tokens=max_tokens, peers=peers)
        per_token[KL_PARENT] = (rollouts.log_probs_NT - theirs_NT) * rollouts.mask_NT
        means[KL_PARENT] = float(per_token[KL_PARENT].sum(1).mean())
    if overseers.safety is not None:
        per_answer[SAFETY] = overseers.safety(features_NF).to(log_ratio_NT.device)
        means[SAFETY] = float(per_answer[SAFETY].mean())
    if overseers.parent_length is not None:
        lengths_N = rollouts.mask_NT.sum(1).to(log_ratio_NT.dtype) / max(overseers.parent_length, 1.0)
        drift = float(lengths_N.mean()) - 1.0
        # Too long: each token more costs. Too short: each token less does.
        per_answer[LENGTH] = lengths_N if drift >= 0 else -lengths_N
        means[LENGTH] = abs(drift)
    if overseers.parent_sameness is not None:
        per_answer[SAMENESS] = given_elsewhere(rollouts.prompts, rollouts.answers()).to(log_ratio_NT.device)
        means[SAMENESS] = float(per_answer[SAMENESS].mean())
    return Costs(per_token, per_answer, means)


def given_elsewhere(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    """For each answer N 1 if another prompt got the very same tokens, else 0."""
    asked: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    for prompt, answer in zip(prompts, answers, strict=True):
        asked[tuple(answer)].add(tuple(prompt))
    return torch.tensor([float(len(asked[tuple(answer)]) > 1) for answer in answers])


def priced(
    scores_N: Tensor, log_ratio_NT: Tensor, costs: Costs, multipliers: Sequence[Multiplier], *, beta: float
) -> tuple[Tensor, Tensor]:
    """Scores N less the costs of whole answers, and the penalty N,T of each token, by beta and the multipliers."""
    penalty_NT = beta * log_ratio_NT
    for multiplier in multipliers:
        name, price = multiplier.limit.name, multiplier.per_unit
        if name in costs.per_token:
            penalty_NT = penalty_NT + price * costs.per_token[name]
        elif name in costs.per_answer:
            scores_N = scores_N - price * costs.per_answer[name]
    return scores_N, penalty_NT


@torch.no_grad()
def log_probs_of(
    policy: Policy, rollouts: Rollouts, *, temperature: float, max_tokens: int, peers: Peers = ALONE
) -> Tensor:
    """Log-probs N,T of answers under the policy as it is now; zero beyond the mask."""
    found_NT = torch.zeros_like(rollouts.log_probs_NT)
    mine = own_groups(peers, group_answers(rollouts.prompts, rollouts.answers()))
    batches = micro_batches(mine, max_tokens)
    for groups, counts in in_step(batches, policy.lm.rounds(len(batches))):
        found_K, at = token_log_probs(policy.lm, groups, temperature)
        if counts:
            found_NT[at] = found_K
    peers.sum(found_NT)
    return found_NT


def imitation_loss(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    *,
    temperature: float,
    max_tokens: int,
    peers: Peers = ALONE,
) -> Iterator[Tensor]:
    """-log p of demonstrations, a mean over all their tokens, in micro-batches whose losses (and gradients) add up.

    Of several processes each gives the losses of its own demonstrations.
    """
    groups = group_answers([d.prompt for d in demonstrations], [d.answer for d in demonstrations])
    tokens = sum(len(d.answer) for d in demonstrations)
    batches = micro_batches(own_groups(peers, groups), max_tokens)
    for batch, counts in in_step(batches, policy.lm.rounds(len(batches))):
        yield -token_log_probs(policy.lm, batch, temperature)[0].sum() / tokens * counts
