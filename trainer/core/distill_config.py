"""What a distillation can be told, and what it tells: configuration, looks and report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainer.core.ppo_config import SMALL_MODEL

StageName = Literal["supervised", "on_policy"]


@dataclass(frozen=True)
class DistillConfig:
    """One distillation. The defaults are for a student of tens of millions of weights; `for_size` has others.

    Answers are drawn at PPO's temperature and length, and distributions are compared at that temperature: what is
    served is what is matched.
    """

    prompts: int = 256
    """Training prompts at most, in the order that a cycle takes them in."""
    min_prompts: int = 16
    """Fewest training prompts. A student of fewer learns these and nothing else."""
    answers: int = 4
    """Answers that the teacher gives to each prompt."""
    keep: int = 2
    """Of these the best, by the reward model, that the student learns from (best-of-n; all: imitation)."""
    epochs: int = 3
    batch_answers: int = 16
    """Answers in an optimizer step of the supervised stage."""
    learning_rate: float = 2e-4
    final_lr_share: float = 0.1
    """The learning rate falls linearly to this share of itself in each stage."""
    warmup_share: float = 0.1
    """Share of a stage's steps in which it rises from zero."""
    cross_entropy: float = 0.5
    """Weight of -log q(token) of the kept answers beside the divergence at their tokens."""
    supervised_beta: float = 0.0
    """Divergence on the teacher's answers: 0 is KL(teacher || student)."""
    iterations: int = 48
    """Optimizer steps of the on-policy stage, each on answers that the student has just drawn."""
    prompts_per_iteration: int = 8
    answers_per_prompt: int = 2
    on_policy_lr_share: float = 0.5
    """Learning rate of the on-policy stage, as a share of the supervised one's."""
    beta: float = 1.0
    """Divergence on the student's own answers: 1 is KL(student || teacher), 0.5 the Jensen-Shannon divergence. On the
    tiny model the first came nearer to the teacher in both directions, the second did not (experiment log)."""
    reward_weight: float = 0.0
    """Weight of the reward (REINFORCE against the prompt's other answers) beside that divergence. With it the student
    is led away from its teacher towards what the reward model likes; the judge and the limits on KL watch that."""
    max_grad_norm: float = 1.0
    check_share: float = 0.125
    """Share of the training prompts that are set aside to see which state is best and when learning ends."""
    checks: int = 8
    """Looks at the student in each stage; there its state is kept, too."""
    patience: int = 4
    """Looks in a row that find it no nearer to its teacher, after which a stage ends."""
    lora_rank: int = 0
    """0 trains every weight of the student; above 0 an adapter of this rank, merged in at the end."""
    micro_batch_tokens: int = 1024

    def __post_init__(self) -> None:
        counts = (self.min_prompts, self.answers, self.keep, self.batch_answers, self.prompts_per_iteration)
        if min(*counts, self.answers_per_prompt, self.checks, self.patience) < 1:
            raise ValueError("prompts, answers, batches, checks and patience must be 1 at least")
        if self.prompts < self.min_prompts:
            raise ValueError(f"{self.prompts} prompts are fewer than min_prompts ({self.min_prompts}): lower that, too")
        if self.keep > self.answers:
            raise ValueError(f"{self.keep} answers can't be kept of {self.answers}: lower keep or raise answers")
        if min(self.epochs, self.iterations, self.lora_rank) < 0 or self.epochs + self.iterations < 1:
            raise ValueError("epochs, iterations and lora_rank must be 0 at least, and one of the first two above it")
        if not (0 <= self.beta <= 1 and 0 <= self.supervised_beta <= 1 and 0 < self.check_share < 1):
            raise ValueError("beta and supervised_beta must be between 0 and 1, check_share above 0 and below 1")
        if self.reward_weight and self.answers_per_prompt < 2:
            raise ValueError("with a reward_weight answers_per_prompt must be 2 at least: one is the other's baseline")

    @classmethod
    def for_size(cls, n_parameters: int) -> "DistillConfig":
        """Defaults by the size of the teacher's base model."""
        if n_parameters > SMALL_MODEL:
            return cls()
        return cls(epochs=6, learning_rate=3e-3, iterations=128)


@dataclass(frozen=True)
class Gap:
    """How far a student is from its teacher on the prompts that are set aside, in nats a token.

    `forward` is KL(teacher || student) on the teacher's answers, which a student can't lower by saying little;
    `reverse` is KL(student || teacher) on the student's own, where it will be served. Both are None where the two
    don't share a tokenizer. `nll` is -log q of the teacher's answers.
    """

    nll: float
    forward: float | None
    reverse: float | None

    @property
    def value(self) -> float:
        """The one figure by which states are compared: the mean of both directions, else `nll`."""
        if self.forward is None or self.reverse is None:
            return self.nll
        return (self.forward + self.reverse) / 2


@dataclass(frozen=True)
class DistillLook:
    """One look at the student: where in its stage, what it lost since the last one, and its gap."""

    stage: StageName
    step: int
    loss: float
    """Mean training loss a token since the last look; 0 at the first."""
    gap: Gap
    learning_rate: float
    grad_norm: float
    reward: float | None
    """Mean normalized reward of the answers that it drew since the last look; None where it drew none."""
    length: float | None
    """Their mean tokens."""
    generated_tokens: int
    trained_tokens: int


@dataclass(frozen=True)
class StageReport:
    """How a stage went. `kept_step` is the optimizer step after which the kept state was seen."""

    stage: StageName
    stopped: str
    steps: int
    kept_step: int
    gap: Gap
    looks: tuple[DistillLook, ...]
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
