"""The fast path: the policy learns from the labels themselves, without a reward model in between and without rollouts.

Implemented:
- DPO (2305.18290, eq. 7), with label smoothing (conservative DPO) and, as an option, log-ratios divided by length
  (2411.15124, section 5.1); it learns from pairs.
- KTO (2402.01306, eq. 8); it learns from thumbs, and from a pair as an answer that was wanted and one that was not.
  The side with less weight is raised to the other's. z0 is the mean log-ratio of the batch's prompts with answers to
  other prompts, at least 0, without gradient; which prompt goes with which answer is drawn once, so that the
  reference is computed once.
- A label counts by its weight; an optimizer step is divided by the weight of all its labels, not of a micro-batch.
- Policy and reference are one model, adapter on and off, at the temperature that answers are sampled at; the
  reference's log-probs are computed once. Answers to one prompt share a row, the output matrix is never N x V.
- Linear decay of the learning rate. A few times in a training it is looked at: at the loss on labels of prompts that
  are set aside (a slice of the training set, none of the judge's), and at answers drawn from the policy, for their KL
  against the base. The state with the least loss within the KL budget is kept; a state beyond it ends the training.

Shapes: N distinct answers, P pairs, U labels ("units") of a batch, T tokens, K real tokens laid end to end.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from schemas.errors import NotEnoughData
from trainer.core.losses import bradley_terry
from trainer.core.models import LanguageModel, Policy, Tokens
from trainer.core.packing import Group, group_answers, micro_batches
from trainer.core.parents import token_log_probs
from trainer.core.ppo_config import SMALL_MODEL
from trainer.core.rewards import Reward, rewards_of
from trainer.core.rollout import SamplingConfig, look, sample

Method = Literal["dpo", "kto"]


@dataclass(frozen=True)
class DirectConfig:
    """One training by DPO or KTO. How answers are drawn and the KL budget are PPO's: gates hold all methods alike."""

    epochs: int = 2
    batch_labels: int = 32
    """Labels to an optimizer step."""
    learning_rate: float = 5e-4
    final_lr_share: float = 0.1
    beta: float = 0.1
    """Nats of log-ratio count this much: the larger, the closer the policy stays to the base."""
    smoothing: float = 0.1
    """DPO: the share of pairs that are taken to be the wrong way round."""
    length_normalized: bool = False
    """DPO: mean log-ratio of a token instead of the sum, so that length alone wins nothing; needs a larger beta."""
    desirable: float = 1.0
    undesirable: float = 1.0
    """KTO: how much wanted and unwanted answers count, once both sides have the same weight."""
    max_grad_norm: float = 1.0
    check_share: float = 0.1
    """Of the training labels, by prompt, those that are set aside to see when learning ends."""
    checks: int = 6
    patience: int = 3
    """Looks in a row without a smaller loss after which the training ends."""
    look_prompts: int = 16
    look_answers: int = 2
    micro_batch_tokens: int = 1024

    def __post_init__(self) -> None:
        counts = (self.epochs, self.batch_labels, self.checks, self.patience, self.look_prompts, self.look_answers)
        if min(counts) < 1 or self.beta <= 0 or not 0 <= self.smoothing < 0.5 or not 0 <= self.check_share < 1:
            raise ValueError("counts must be 1 at least, beta above 0, smoothing below 0.5, check_share below 1")
        if self.desirable <= 0 or self.undesirable <= 0:
            raise ValueError("desirable and undesirable must be above 0")

    @classmethod
    def for_size(cls, n_parameters: int) -> "DirectConfig":
        """Defaults by the size of the base model."""
        return cls() if n_parameters > SMALL_MODEL else cls(epochs=4, learning_rate=3e-3)


@dataclass(frozen=True)
class DirectData:
    """N distinct answers, each with its prompt, and what people said of them. Numbers point into `answers`."""

    prompts: tuple[Tokens, ...]
    """One for each answer (length N)."""
    answers: tuple[Tokens, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    """Chosen and rejected."""
    pair_weights: tuple[float, ...] = ()
    rated: tuple[int, ...] = ()
    liked: tuple[bool, ...] = ()
    rating_weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class DirectStep:
    """What one look saw, and what was done since the last one. `iteration` counts looks; the first sees the start."""

    iteration: int
    loss: float
    """Mean weighted training loss since the last look; 0 at the first."""
    check_loss: float
    """The same on the labels set aside; 0 where there are none."""
    reward: float
    """Mean reward, by the reward model, of the answers drawn."""
    kl: float
    """Mean of sum(log pi - log pi_ref) over an answer."""
    entropy: float
    length: float
    finished: float
    grad_norm: float
    optimizer_steps: int
    tokens: int
    """Drawn for the look."""
    trained_tokens: int


@dataclass(frozen=True)
class DirectReport:
    """How a training went, in the words of `trainer.core.ppo_config.PPOReport`."""

    steps: tuple[DirectStep, ...]
    stopped: str
    kl: float
    reward: float
    first_reward: float
    optimizer_steps: int
    answers: int
    """Answers drawn."""
    tokens: int


def dpo_loss(chosen_P: Tensor, rejected_P: Tensor, weights_P: Tensor, *, beta: float, smoothing: float = 0.0) -> Tensor:
    """Weighted sum of -(1 - s) log sigma(beta h) - s log sigma(-beta h), h = log-ratio of chosen - of rejected.

    A log-ratio is log pi - log pi_ref of an answer. Eq. 7 of 2305.18290 at s = 0.
    """
    margins_P = beta * (chosen_P - rejected_P)
    return bradley_terry(margins_P[:, None], weights_P[:, None], smoothing=smoothing)


def kto_loss(ratio_U: Tensor, liked_U: Tensor, weights_U: Tensor, z0: Tensor, *, beta: float) -> Tensor:
    """Weighted sum of 1 - sigma(beta (r - z0)) for a wanted answer and 1 - sigma(beta (z0 - r)) for another.

    `ratio_U` is r = log pi - log pi_ref. Eq. 8 of 2402.01306, lambda being part of the weight.
    """
    sign_U = torch.where(liked_U, 1.0, -1.0)
    return ((1 - (beta * sign_U * (ratio_U - z0)).sigmoid()) * weights_U).sum()


@dataclass(frozen=True)
class _Unit:
    """One label: the answers that its loss is of (DPO: chosen and rejected), and how much it counts."""

    answers: Tokens
    weight: float
    prompt: int
    """The number of its prompt: what is set aside, is so by prompt."""
    liked: bool = True
    elsewhere: int = -1
    """KTO: which of the mismatched answers goes with its prompt; -1 where all prompts are one."""


def improve_directly(
    policy: Policy,
    method: Method,
    data: DirectData,
    reward: Reward,
    prompts: Sequence[Sequence[int]],
    config: DirectConfig,
    *,
    sampling: SamplingConfig,
    kl_budget: float,
    seed: int,
    on_step: Callable[[DirectStep], None] = lambda step: None,
    should_stop: Callable[[], str | None] = lambda: None,
) -> DirectReport:
    """Train `policy` in place on what people said of answers; `prompts` are for the looks, which `reward` only rates.

    `should_stop` is asked before each optimizer step; a reason it returns ends the training early and becomes
    `stopped`. Deterministic on the CPU for a seed and a number of threads. Raises NotEnoughData where there is nothing
    that the method learns from.
    """
    generator = torch.Generator().manual_seed(seed)
    trainer = _Trainer(policy, method, data, config, sampling.temperature, generator)
    watch = _Watch(policy, trainer, reward, prompts[: config.look_prompts], config, sampling, kl_budget, seed)
    on_step(watch.look())
    stopped = "done"
    batches = list(trainer.batches(generator))
    due = {round(len(batches) * (n + 1) / config.checks) for n in range(config.checks)}
    for number, batch in enumerate(batches):
        reason = should_stop()
        if reason is not None:
            stopped = reason
            break
        trainer.step(batch, 1 - (1 - config.final_lr_share) * number / max(1, len(batches) - 1))
        if number + 1 in due:
            on_step(watch.look())
            ended = watch.verdict()
            if ended is not None:
                stopped = ended
                break
    if trainer.tally.steps:
        on_step(watch.look())
    return watch.report(stopped)


class _Trainer:
    """The labels, their reference, and the optimizer."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        data: DirectData,
        config: DirectConfig,
        temperature: float,
        generator: torch.Generator,
    ) -> None:
        self.policy, self.method, self.config, self.temperature = policy, method, config, temperature
        self.prompts, self.answers = list(data.prompts), list(data.answers)
        units = pair_units(data) if method == "dpo" else thumb_units(data, config)
        if not units:
            raise NotEnoughData(_nothing_to_learn(method))
        if method == "kto":
            units = self._mismatched(units)
        self.check, self.train = set_aside(units, config.check_share, generator)
        self.parameters = policy.adapter_parameters()
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, eps=1e-5)
        looked = look(
            policy.lm, self.prompts, self.answers, temperature=temperature, max_tokens=config.micro_batch_tokens
        )
        self.reference_N = looked.log_probs_NT.sum(1)
        self.tally = Tally()

    def _mismatched(self, units: list[_Unit]) -> list[_Unit]:
        """Give each unit the next unit's answer that is to another prompt, and append these to the answers."""
        found: list[_Unit] = []
        for n, unit in enumerate(units):
            others = (units[(n + k) % len(units)] for k in range(1, len(units)))
            other = next((u for u in others if u.prompt != unit.prompt), None)
            if other is not None:
                self.prompts.append(self.prompts[unit.answers[0]])
                self.answers.append(self.answers[other.answers[0]])
            found.append(unit if other is None else replace(unit, elsewhere=len(self.answers) - 1))
        return found

    def batches(self, generator: torch.Generator) -> Iterator[list[_Unit]]:
        """All batches of all epochs, each epoch in an order of its own."""
        for _ in range(self.config.epochs):
            order = torch.randperm(len(self.train), generator=generator).tolist()
            for start in range(0, len(order), self.config.batch_labels):
                yield [self.train[i] for i in order[start : start + self.config.batch_labels]]

    def step(self, batch: list[_Unit], rate: float) -> None:
        """One optimizer step; gradients are gathered over micro-batches."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate
        self.optimizer.zero_grad(set_to_none=True)
        whole, z0 = sum(unit.weight for unit in batch), self._z0(batch)
        for part in self._parts(batch):
            loss = self._loss(part, z0) / whole
            loss.backward()
            self.tally.loss += float(loss.detach()) * whole
        self.tally.grad_norm += float(nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        self.optimizer.step()
        self.tally.weight += whole
        self.tally.steps += 1
        self.tally.tokens += sum(len(self.answers[i]) for unit in batch for i in unit.answers)

    @torch.no_grad()
    def check_loss(self) -> float | None:
        """Mean weighted loss of the labels set aside; None where there are none."""
        if not self.check:
            return None
        z0 = self._z0(self.check)
        total = sum(float(self._loss(part, z0)) for part in self._parts(self.check))
        return total / sum(unit.weight for unit in self.check)

    @torch.no_grad()
    def _z0(self, units: Sequence[_Unit]) -> Tensor:
        """max(0, mean log-ratio) of the units' prompts with answers to other prompts; 0 for DPO."""
        elsewhere = [unit.elsewhere for unit in units if unit.elsewhere >= 0]
        if not elsewhere:
            return torch.zeros((), device=self.policy.lm.device)
        groups = group_answers([self.prompts[i] for i in elsewhere], [self.answers[i] for i in elsewhere])
        total = torch.zeros((), device=self.policy.lm.device)
        for part in micro_batches(groups, self.config.micro_batch_tokens):
            found = log_probs_of(self.policy.lm, part, len(elsewhere), self.temperature)
            rows = torch.tensor([i for g in part for i in g.indices], device=found.device)
            total += (found[rows] - self.reference_N[torch.tensor(elsewhere, device=found.device)[rows]]).sum()
        return (total / len(elsewhere)).clamp(min=0)

    def _parts(self, units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
        """Micro-batches: labels of one prompt together, no more padded tokens than allowed (one label at least)."""
        part: list[_Unit] = []
        for unit in sorted(units, key=lambda u: (u.prompt, u.answers)):
            if part and self._padded([*part, unit]) > self.config.micro_batch_tokens:
                yield part
                part = []
            part.append(unit)
        if part:
            yield part

    def _groups(self, units: Sequence[_Unit]) -> tuple[list[int], list[Group]]:
        rows = list(dict.fromkeys(i for unit in units for i in unit.answers))
        return rows, group_answers([self.prompts[i] for i in rows], [self.answers[i] for i in rows])

    def _padded(self, units: Sequence[_Unit]) -> int:
        _, groups = self._groups(units)
        return len(groups) * max(group.n_tokens for group in groups)

    def _loss(self, units: Sequence[_Unit], z0: Tensor) -> Tensor:
        """The loss of these labels, summed with their weights."""
        rows, groups = self._groups(units)
        log_probs_N = log_probs_of(self.policy.lm, groups, len(rows), self.temperature)
        device = log_probs_N.device
        ratio_N = log_probs_N - self.reference_N[torch.tensor(rows, device=device)]
        place = {row: n for n, row in enumerate(rows)}
        at_UA = torch.tensor([[place[i] for i in unit.answers] for unit in units], device=device)
        weights_U = torch.tensor([unit.weight for unit in units], device=device)
        if self.method == "kto":
            liked_U = torch.tensor([unit.liked for unit in units], device=device)
            return kto_loss(ratio_N[at_UA[:, 0]], liked_U, weights_U, z0, beta=self.config.beta)
        if self.config.length_normalized:
            ratio_N = ratio_N / torch.tensor([len(self.answers[i]) for i in rows], device=device)
        chosen_U, rejected_U = ratio_N[at_UA].unbind(1)
        return dpo_loss(chosen_U, rejected_U, weights_U, beta=self.config.beta, smoothing=self.config.smoothing)


def pair_units(data: DirectData) -> list[_Unit]:
    """DPO's labels: the pairs."""
    number = _prompt_numbers(data)
    pairs = zip(data.pairs, data.pair_weights, strict=True)
    return [_Unit(pair, weight, number[pair[0]]) for pair, weight in pairs]


def thumb_units(data: DirectData, config: DirectConfig) -> list[_Unit]:
    """KTO's labels: thumbs and both sides of pairs, one for each answer and verdict, both verdicts of equal weight.

    None where all verdicts are the same: there is nothing to tell apart.
    """
    weights: dict[tuple[int, bool], float] = defaultdict(float)
    for row, liked, weight in zip(data.rated, data.liked, data.rating_weights, strict=True):
        weights[row, liked] += weight
    for (chosen, rejected), weight in zip(data.pairs, data.pair_weights, strict=True):
        weights[chosen, True] += weight
        weights[rejected, False] += weight
    up, down = (sum(w for (_, liked), w in weights.items() if liked is side) for side in (True, False))
    if not up or not down:
        return []
    scale = {True: config.desirable * max(1.0, down / up), False: config.undesirable * max(1.0, up / down)}
    number = _prompt_numbers(data)
    return [_Unit((row,), w * scale[liked], number[row], liked) for (row, liked), w in sorted(weights.items())]


def _prompt_numbers(data: DirectData) -> list[int]:
    numbers = {prompt: n for n, prompt in enumerate(dict.fromkeys(data.prompts))}
    return [numbers[prompt] for prompt in data.prompts]


def set_aside(units: Sequence[_Unit], share: float, generator: torch.Generator) -> tuple[list[_Unit], list[_Unit]]:
    """The labels of a share of the prompts, and those of the others (of one prompt at least)."""
    prompts = sorted({unit.prompt for unit in units})
    order = torch.randperm(len(prompts), generator=generator).tolist()
    aside = {prompts[i] for i in order[: min(round(len(prompts) * share), len(prompts) - 1)]}
    return [u for u in units if u.prompt in aside], [u for u in units if u.prompt not in aside]


def _nothing_to_learn(method: Method) -> str:
    if method == "dpo":
        return "DPO learns from pairs, and there are none to train on: set THUMBWHEEL_METHOD to kto or ppo"
    return "KTO needs answers that people liked and answers that they did not: collect both, or set THUMBWHEEL_METHOD"


def log_probs_of(lm: LanguageModel, groups: Sequence[Group], n: int, temperature: float) -> Tensor:
    """Sums N of the answers' token log-probs under the model as it is; 0 for those that are in none of the groups."""
    found_K, (answer_K, _) = token_log_probs(lm, groups, temperature)
    return torch.zeros(n, device=lm.device).index_add(0, answer_K, found_K)


@dataclass
class Tally:
    """Sums since the last look."""

    loss: float = 0.0
    weight: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    tokens: int = 0


class _Watch:
    """Looks at the policy as it learns, and keeps the best state that is within the KL budget."""

    def __init__(
        self,
        policy: Policy,
        trainer: _Trainer,
        reward: Reward,
        prompts: Sequence[Sequence[int]],
        config: DirectConfig,
        sampling: SamplingConfig,
        kl_budget: float,
        seed: int,
    ) -> None:
        self.policy, self.trainer, self.reward, self.prompts = policy, trainer, reward, prompts
        self.config, self.sampling, self.kl_budget, self.seed = config, sampling, kl_budget, seed
        self.steps: list[DirectStep] = []
        self.kept: tuple[DirectStep, list[Tensor]] | None = None
        self.without_gain = 0

    @torch.no_grad()
    def look(self) -> DirectStep:
        """The policy as it is now; kept where it is the best so far. Every look draws by the same random numbers."""
        rollouts = sample(
            self.policy,
            self.prompts,
            self.config.look_answers,
            self.sampling,
            torch.Generator().manual_seed(self.seed + 1),
            keep_lower=True,
        )
        answers = rollouts.answers()
        looked = look(
            self.policy.lm,
            rollouts.prompts,
            answers,
            temperature=self.sampling.temperature,
            max_tokens=self.config.micro_batch_tokens,
            lower=rollouts.lower,
        )
        width = looked.log_probs_NT.shape[1]
        mask_NT = rollouts.mask_NT[:, :width]
        ratio_NT = (rollouts.log_probs_NT[:, :width] - looked.log_probs_NT) * mask_NT
        tally, check = self.trainer.tally, self.trainer.check_loss()
        step = DirectStep(
            iteration=len(self.steps),
            loss=tally.loss / tally.weight if tally.steps else 0.0,
            check_loss=0.0 if check is None else check,
            reward=float(rewards_of(self.reward, self.policy.lm, looked.features_NF, rollouts.prompts, answers).mean()),
            kl=float(ratio_NT.sum(1).mean()),
            entropy=float(rollouts.entropies_NT[:, :width][mask_NT].mean()),
            length=float(mask_NT.sum(1).float().mean()),
            finished=float(rollouts.finished_N.float().mean()),
            grad_norm=tally.grad_norm / max(1, tally.steps),
            optimizer_steps=tally.steps,
            tokens=int(mask_NT.sum()),
            trained_tokens=tally.tokens,
        )
        self.trainer.tally = Tally()
        self.steps.append(step)
        self._keep(step, measured=check is not None)
        return step

    def _keep(self, step: DirectStep, *, measured: bool) -> None:
        """The first state is kept whatever its KL: it is the one started from. Without labels set aside, the last."""
        better = self.kept is None or not measured or step.check_loss < self.kept[0].check_loss
        if self.kept is None or (better and step.kl <= self.kl_budget):
            self.kept = (step, [p.detach().clone() for p in self.trainer.parameters])
            self.without_gain = 0
        else:
            self.without_gain += 1

    def verdict(self) -> str | None:
        """Why the training should end now."""
        if self.steps[-1].kl > self.kl_budget:
            return "kl_budget"
        return "no_better" if self.without_gain >= self.config.patience else None

    @torch.no_grad()
    def report(self, stopped: str) -> DirectReport:
        """Go back to the state that was kept, and tell how it went."""
        assert self.kept is not None
        best, values = self.kept
        for parameter, value in zip(self.trainer.parameters, values, strict=True):
            parameter.copy_(value)
        return DirectReport(
            steps=tuple(self.steps),
            stopped=stopped,
            kl=best.kl,
            reward=best.reward,
            first_reward=self.steps[0].reward,
            optimizer_steps=sum(step.optimizer_steps for step in self.steps),
            answers=len(self.steps) * len(self.prompts) * self.config.look_answers,
            tokens=sum(step.tokens for step in self.steps),
        )
