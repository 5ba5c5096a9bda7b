"""What a PPO training can be told, and what it tells: configuration, steps and report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.core.constraints import Gains
from trainer.core.models import Critic
from trainer.core.rollout import SamplingConfig

SMALL_MODEL = 5_000_000
"""Parameters below which a model is a toy that needs (and can afford) more and larger steps."""


@dataclass(frozen=True)
class PPOConfig:
    """One cycle's training. The defaults are for SmolLM2-135M on two CPU cores; `for_size` has others.

    The presets and what they were measured to do, or were not, are in the experiment log.
    """

    iterations: int = 6
    prompts_per_iteration: int = 6
    answers_per_prompt: int = 8
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    critic: Critic = "shared"
    """"none" is RLOO: the other answers to the prompt are the baseline, and no value function is learned."""
    epochs: int = 1
    minibatches: int = 6
    learning_rate: float = 3e-3
    value_learning_rate: float = 2e-3
    final_lr_share: float = 0.1
    """The learning rate falls linearly to this share of itself."""
    beta: float = 0.05
    """First KL coefficient, in normalized reward per nat."""
    target_kl: float = 5.0
    """Nats an answer that adaptive beta steers towards."""
    kl_horizon: float = 4096.0
    kl_budget: float = 8.0
    """Nats an answer against the base that no measured state may exceed and be kept, but the one started from."""
    kl_parent_budget: float = 6.0
    """The same against the version that is served: how much users may notice at once."""
    safety_rise: float = 0.02
    """How far the mean safety cost may rise above the parent's, where there is a safety head."""
    length_drift: float = 0.5
    """Share by which the mean length may differ from the parent's."""
    sameness_rise: float = 0.15
    """How far the share of answers that another prompt gets as well may rise above the parent's; half of its gate's."""
    gains: Gains = field(default_factory=Gains)
    limit_slack: float = 0.1
    """A measured mean is noisy: a state counts as within a limit up to this many of its scales above it."""
    hard_stop: float = 1.5
    """Times a KL budget: beyond it no multiplier is waited for."""
    patience: int = 4
    """Training ends when the judge clearly likes so many states in a row less than the best one; 0: never."""
    ptx_coefficient: float = 0.0
    """Weight of -log p of demonstrations (corrections that users wrote) beside the PPO loss."""
    ptx_batch: int = 8
    """Demonstrations in each optimizer step."""
    missing_eos_penalty: float = 0.5
    """Taken off the normalized reward of an answer that ran into the token limit."""
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 0.1
    max_update_kl: float = 0.05
    """Mean k3 KL per token between old and new policy at which an epoch is cut short."""
    max_grad_norm: float = 1.0
    closing_prompts: int = 6
    """Prompts of the last look, which measures the final state; with 0 that state is kept without being measured."""
    micro_batch_tokens: int = 1024
    importance_cap: float = 2.0
    """Where a server draws the answers: no token counts more than so many times for being likelier here than there."""
    mismatch_limit: float = 0.1
    """Mean nats a token by which a server's log-probs may differ from the trainer's; beyond it training fails."""

    def __post_init__(self) -> None:
        if not 1 <= self.minibatches <= self.prompts_per_iteration:
            raise ValueError("minibatches must be between 1 and prompts_per_iteration")
        if self.answers_per_prompt < (2 if self.critic == "none" else 1):
            raise ValueError("answers_per_prompt must be 1 at least, 2 without a critic: one is the other's baseline")

    @classmethod
    def for_size(cls, n_parameters: int) -> "PPOConfig":
        """Defaults by the size of the base model."""
        if n_parameters > SMALL_MODEL:
            return cls()
        return cls(
            iterations=16,
            prompts_per_iteration=8,
            epochs=2,
            minibatches=2,
            closing_prompts=8,
            learning_rate=3e-3,
            beta=0.15,
            kl_budget=6.0,
            sampling=SamplingConfig(max_new_tokens=24, temperature=0.8),
        )


@dataclass(frozen=True)
class PPOStep:
    """What one iteration saw and did. Rollout figures are those before the update; KL in nats."""

    iteration: int
    reward: float
    """Mean normalized reward, without KL and fines."""
    kl: float
    """Mean of sum(log pi - log pi_ref) over an answer."""
    beta: float
    entropy: float
    length: float
    finished: float
    """Share of answers that ended with EOS."""
    clip_fraction: float
    update_kl: float
    value_loss: float
    grad_norm: float
    optimizer_steps: int
    first_ratio: float
    """Mean probability ratio of the first micro-batch; 1 unless decoding and training disagree."""
    tokens: int
    costs: Mapping[str, float] = field(default_factory=dict[str, float])
    """Mean costs by limit, each in its own unit."""
    multipliers: Mapping[str, float] = field(default_factory=dict[str, float])
    """What each limit weighed in this update."""
    judged: float | None = None
    """The judge's mean score; None without a judge."""
    mismatch: float | None = None
    """Mean |log p_server - log p_trainer| a token where a server drew the answers, else None."""
    importance: float | None = None
    """Mean truncated weight p_trainer / p_server of a token."""


@dataclass(frozen=True)
class PPOReport:
    """How a training went. `stopped` is why it ended; `kl`, `reward` and `costs` are of the state that was kept."""

    steps: tuple[PPOStep, ...]
    stopped: str
    kl: float
    reward: float
    first_reward: float
    optimizer_steps: int
    answers: int
    tokens: int
    kept_iteration: int = 0
    """Updates that the kept state has had."""
    costs: Mapping[str, float] = field(default_factory=dict[str, float])
    multipliers: Mapping[str, float] = field(default_factory=dict[str, float])
    """As they were at the end."""
