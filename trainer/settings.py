"""The trainer's settings, read once from the environment (prefix `THUMBWHEEL_`, nested by `__`).

What a cycle's result depends on is gathered in a `CycleConfig`, which the version's record holds.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas.connection import KafkaConnection
from schemas.storage import LakeRoot, root_setting
from trainer.core.budget import Budget
from trainer.core.cost import MonthLimits
from trainer.core.dataset import SplitConfig
from trainer.core.gates import GateThresholds
from trainer.core.ppo import PPOConfig
from trainer.core.reward import RewardConfig
from trainer.core.triggers import Rules, check_schedule

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Above = Annotated[float, Field(gt=0)]
D = TypeVar("D", PPOConfig, RewardConfig, GateThresholds)


class _Nested(BaseModel):
    """Changes to a core's defaults; None keeps the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def given(self) -> dict[str, Any]:
        """What was set."""
        return self.model_dump(exclude_none=True)

    def change(self, defaults: D) -> D:
        """`defaults` with what was set."""
        return replace(defaults, **self.given())


class PPOSettings(_Nested):
    """Changes to `trainer.core.ppo.PPOConfig`, whose defaults go by the size of the base model."""

    iterations: Count | None = None
    prompts_per_iteration: Count | None = None
    answers_per_prompt: Annotated[int, Field(ge=2)] | None = None
    epochs: Count | None = None
    minibatches: Count | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    beta: Annotated[float, Field(ge=0)] | None = None
    target_kl: Annotated[float, Field(gt=0)] | None = None
    kl_budget: Annotated[float, Field(gt=0)] | None = None
    max_new_tokens: Count | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None

    def change(self, defaults: D) -> D:
        assert isinstance(defaults, PPOConfig)
        given = self.given()
        sampling = {name: given.pop(name) for name in ("max_new_tokens", "temperature") if name in given}
        return replace(defaults, sampling=replace(defaults.sampling, **sampling), **given)


class RewardSettings(_Nested):
    """Changes to `trainer.core.reward.RewardConfig`."""

    heads: Annotated[int, Field(ge=2)] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    pair_share: Annotated[float, Field(ge=0, le=1)] | None = None
    l2_grid: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    spread_discount: Annotated[float, Field(ge=0)] | None = None
    clip: Annotated[float, Field(gt=0)] | None = None


class GateSettings(_Nested):
    """Changes to `trainer.core.gates.GateThresholds`, where each has its reason."""

    reward_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    enough_cases: Count | None = None
    win_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    win_rate_low: Annotated[float, Field(ge=0, le=1)] | None = None
    kl_slack: Annotated[float, Field(gt=0)] | None = None
    shortest: Annotated[float, Field(ge=0)] | None = None
    longest: Annotated[float, Field(gt=0)] | None = None


class LoraOptions(BaseModel):
    """The policy's adapter: rank, scale, which matrices, and the share of layers (from the top) that get one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: Count = 8
    alpha: Count = 16
    target_modules: tuple[str, ...] = ("q_proj", "v_proj", "o_proj")
    top_share: Annotated[float, Field(gt=0, le=1)] = 0.5


class Limits(BaseModel):
    """How much of a long text is read: the end of a prompt, the beginning of an answer (tokens)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_tokens: Count = 384
    answer_tokens: Count = 256


class CycleConfig(BaseModel):
    """All that decides a cycle's result, beside the tables' versions, the parent and the base model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    split: SplitConfig
    reward: RewardConfig
    ppo: PPOConfig
    lora: LoraOptions
    gates: GateThresholds
    limits: Limits
    budget: Budget
    dtype: str
    device: str
    threads: int


class TrainerSettings(BaseSettings):
    """What the trainer needs to know.

    `min_new_preferences` counts labels that count (latest revisions, not retracted) beyond those of the last cycle, as
    their effective number: one person among many counts no more than the training lets them.
    After `max_cycles` cycles that ended in order no more is begun, while scoring goes on; 0 is endless.
    `threads` 0 leaves it to torch. A port of 0 means off.
    """

    model_config = SettingsConfigDict(env_prefix="THUMBWHEEL_", env_nested_delimiter="__", frozen=True, extra="ignore")

    data: Path = Path(".thumbwheel")
    lake_options: Mapping[str, str] = Field(default_factory=dict[str, str], repr=False)
    """For a lake in a store: options of its client as a JSON object, beside the usual `AWS_*` variables."""
    lake: Annotated[LakeRoot, NoDecode, PlainValidator(root_setting)] = Field(
        default="{data}/lake",
        validate_default=True,  # type: ignore[assignment]
    )
    """Where the tables lie, as the streams know it: a folder, or `s3://bucket/prefix`. The registry is a folder."""
    kafka: KafkaConnection = KafkaConnection()
    base_model: str = "models/smollm2"
    base_model_name: str = "smollm2"
    device: str = "auto"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    min_new_preferences: Count = 200
    poll_seconds: Seconds = 2.0
    max_cycles: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    split_seed: int = 0
    holdout_share: Share = 0.25
    judge_share: Share = 0.35
    rater_cap: Annotated[float, Field(gt=0, le=1)] = 0.01
    min_labels: Count = 20
    max_labels: Count = 3000
    max_held_out_prompts: Count = 64
    max_cycle_seconds: Seconds = 3600.0
    max_cycle_tokens: Count = 20_000_000
    max_cycle_cost: Above | None = None
    """What one cycle may cost, by the price below."""
    max_month_seconds: Above | None = None
    """What all cycles of a calendar month (UTC) may take together; once it is used up none begins before the next."""
    max_month_tokens: Count | None = None
    max_month_cost: Above | None = None
    price_per_hour: Above | None = None
    """What an hour of the machine costs; with it, cycles tell what they cost in money."""
    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    schedule: Annotated[str, AfterValidator(check_schedule)] | None = None
    """Cron schedule (five fields, UTC) at which a cycle begins if any label is new."""
    cycle_every: Above | None = None
    """Hours after which a cycle begins if any label is new, however few."""
    cycle_apart: Annotated[float, Field(ge=0)] = 0.0
    """Hours that lie at least between the beginnings of two cycles that were not begun by hand."""
    drift_alerts: str = "drift"
    """An open alert whose name begins so (in any case) begins a cycle if any label is new; empty for none."""
    approval: Literal["none", "required"] = "none"
    """`required`: a version that passed its gates waits for `thumbwheel cycles approve` before anyone hears of it."""
    approval_days: Above = 7.0
    """After so many days without an answer it is rejected."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 5.0
    """The training keeps its state after an iteration, at most once in so many seconds; there a killed one goes on."""
    max_tries: Count = 3
    """Processes that may die of one cycle before it is given up."""
    signing_key_file: Path | None = None
    """Key (`thumbwheel cycles make-key`) by which versions are signed, and checked before they are used."""
    score_responses: Annotated[int, Field(ge=0)] = 64
    score_batch: Count = 16
    ppo: PPOSettings = PPOSettings()
    reward: RewardSettings = RewardSettings()
    gates: GateSettings = GateSettings()
    lora: LoraOptions = LoraOptions()
    limits: Limits = Limits()
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    log_level: str = "INFO"

    @property
    def registry(self) -> Path:
        """One folder a version."""
        return self.data / "registry"

    @property
    def cycles(self) -> Path:
        """One folder a cycle, and the lease."""
        return self.data / "cycles"

    def torch_device(self) -> str | None:
        """The device as torch names it; None leaves the choice to the loader."""
        return None if self.device == "auto" else self.device

    def split(self) -> SplitConfig:
        """How labels are split."""
        return SplitConfig(
            holdout_share=self.holdout_share,
            judge_share=self.judge_share,
            rater_cap=self.rater_cap,
            min_labels=self.min_labels,
            max_labels=self.max_labels,
            max_held_out_prompts=self.max_held_out_prompts,
            seed=self.split_seed,
        )

    def budget(self) -> Budget:
        """What one cycle may use."""
        return Budget(
            max_seconds=self.max_cycle_seconds,
            max_tokens=self.max_cycle_tokens,
            max_cost=self.max_cycle_cost,
            price_per_hour=self.price_per_hour,
        )

    def month_limits(self) -> MonthLimits:
        """What all cycles of a month may use together."""
        return MonthLimits(self.max_month_seconds, self.max_month_tokens, self.max_month_cost, self.price_per_hour)

    def rules(self) -> Rules:
        """When cycles begin by themselves."""
        return Rules(
            min_new=self.min_new_preferences,
            schedule=self.schedule,
            every=None if self.cycle_every is None else timedelta(hours=self.cycle_every),
            apart=timedelta(hours=self.cycle_apart),
        )

    @model_validator(mode="after")
    def _prices_are_known(self) -> Self:
        self.budget()  # both raise where a limit of cost has no price
        self.month_limits()
        return self

    def cycle_config(self, *, n_parameters: int, dtype: str, device: str, threads: int, seed: int) -> CycleConfig:
        """The configuration of one cycle on a base model of this size, with what "auto" came to."""
        return CycleConfig(
            seed=seed,
            split=self.split(),
            reward=self.reward.change(RewardConfig()),
            ppo=self.ppo.change(PPOConfig.for_size(n_parameters)),
            lora=self.lora,
            gates=self.gates.change(GateThresholds()),
            limits=self.limits,
            budget=self.budget(),
            dtype=dtype,
            device=device,
            threads=threads,
        )
