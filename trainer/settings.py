"""The trainer's settings, read once from the environment (prefix `THUMBWHEEL_`, nested by `__`).

What a cycle's result depends on is gathered in a `CycleConfig`, which the version's record holds.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas.connection import KafkaConnection
from schemas.storage import LakeRoot, root_setting
from trainer.core.budget import Budget
from trainer.core.cost import MonthLimits
from trainer.core.dataset import SplitConfig
from trainer.core.direct import DirectConfig, Method
from trainer.core.distill_config import DistillConfig
from trainer.core.domains import By
from trainer.core.gates import GateThresholds
from trainer.core.models import Critic
from trainer.core.ppo_config import SMALL_MODEL, PPOConfig
from trainer.core.reward import RewardConfig
from trainer.core.reward_fit import Trunk
from trainer.core.safety import SafetyConfig
from trainer.core.triggers import Rules, check_schedule
from trainer.core.weights import SourceWeights

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0)]
D = TypeVar("D", PPOConfig, RewardConfig, GateThresholds, SourceWeights, DirectConfig, DistillConfig)


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
    """Changes to `trainer.core.ppo_config.PPOConfig`, whose defaults go by the size of the base model."""

    iterations: Count | None = None
    prompts_per_iteration: Count | None = None
    answers_per_prompt: Annotated[int, Field(ge=2)] | None = None
    critic: Critic | None = None
    epochs: Count | None = None
    minibatches: Count | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    beta: Annotated[float, Field(ge=0)] | None = None
    target_kl: Annotated[float, Field(gt=0)] | None = None
    kl_budget: Annotated[float, Field(gt=0)] | None = None
    kl_parent_budget: Annotated[float, Field(gt=0)] | None = None
    safety_rise: Annotated[float, Field(ge=0)] | None = None
    length_drift: Annotated[float, Field(gt=0)] | None = None
    sameness_rise: Annotated[float, Field(ge=0)] | None = None
    patience: Annotated[int, Field(ge=0)] | None = None
    ptx_coefficient: Annotated[float, Field(ge=0)] | None = None
    ptx_batch: Count | None = None
    importance_cap: Annotated[float, Field(ge=1)] | None = None
    mismatch_limit: Annotated[float, Field(gt=0)] | None = None
    max_new_tokens: Count | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None

    def change(self, defaults: D) -> D:
        assert isinstance(defaults, PPOConfig)
        given = self.given()
        sampling = {name: given.pop(name) for name in ("max_new_tokens", "temperature") if name in given}
        return replace(defaults, sampling=replace(defaults.sampling, **sampling), **given)


class DirectSettings(_Nested):
    """Changes to `trainer.core.direct.DirectConfig`, whose defaults go by the size of the base model: DPO and KTO."""

    epochs: Count | None = None
    batch_labels: Count | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    beta: Annotated[float, Field(gt=0)] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    length_normalized: bool | None = None
    desirable: Annotated[float, Field(gt=0)] | None = None
    undesirable: Annotated[float, Field(gt=0)] | None = None
    check_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    checks: Count | None = None
    patience: Count | None = None
    look_prompts: Count | None = None


class DistillSettings(_Nested):
    """Changes to `trainer.core.distill_config.DistillConfig`, whose defaults go by the size of the teacher's base."""

    prompts: Annotated[int, Field(ge=2)] | None = None
    min_prompts: Annotated[int, Field(ge=2)] | None = None
    answers: Count | None = None
    keep: Count | None = None
    epochs: Annotated[int, Field(ge=0)] | None = None
    batch_answers: Count | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    cross_entropy: Annotated[float, Field(ge=0)] | None = None
    supervised_beta: Annotated[float, Field(ge=0, le=1)] | None = None
    iterations: Annotated[int, Field(ge=0)] | None = None
    prompts_per_iteration: Count | None = None
    answers_per_prompt: Count | None = None
    on_policy_lr_share: Annotated[float, Field(gt=0)] | None = None
    beta: Annotated[float, Field(ge=0, le=1)] | None = None
    reward_weight: Annotated[float, Field(ge=0)] | None = None
    check_share: Share | None = None
    checks: Count | None = None
    patience: Count | None = None
    lora_rank: Annotated[int, Field(ge=0)] | None = None


class RewardSettings(_Nested):
    """Changes to `trainer.core.reward.RewardConfig`."""

    heads: Annotated[int, Field(ge=2)] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    pair_share: Annotated[float, Field(ge=0, le=1)] | None = None
    l2_grid: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    spread_discount: Annotated[float, Field(ge=0)] | None = None
    clip: Annotated[float, Field(gt=0)] | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    remove_length: bool | None = None
    rater_spread: Annotated[float, Field(ge=0)] | None = None
    one_sided_raters: Annotated[int, Field(ge=2)] | None = None
    trunk: Trunk | None = None
    trunk_epochs: Count | None = None
    trunk_labels: Count | None = None
    trunk_rate: Annotated[float, Field(gt=0)] | None = None
    trunk_rank: Count | None = None
    trunk_folds: Annotated[int, Field(ge=2)] | None = None
    refit_share: Annotated[float, Field(ge=0)] | None = None
    by: By | None = None
    """What may have reward weights of its own: `segment` or `tenant` (that answers were served in); `none`: nothing."""
    domain_labels: Count | None = None
    domain_users: Annotated[int, Field(ge=2)] | None = None


class GateSettings(_Nested):
    """Changes to `trainer.core.gates.GateThresholds`, where each has its reason."""

    reward_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    enough_cases: Count | None = None
    calibration: Annotated[float, Field(ge=0, le=1)] | None = None
    length_cases: Count | None = None
    win_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    win_rate_low: Annotated[float, Field(ge=0, le=1)] | None = None
    win_certainty: Annotated[float, Field(ge=0, le=1)] | None = None
    comparisons: Annotated[int, Field(ge=0)] | None = None
    kl_slack: Annotated[float, Field(gt=0)] | None = None
    kl_parent_share: Annotated[float, Field(gt=0)] | None = None
    shortest: Annotated[float, Field(ge=0)] | None = None
    longest: Annotated[float, Field(gt=0)] | None = None
    slower: Annotated[float, Field(gt=0)] | None = None
    family_error: Share | None = None
    unsafe_rise: Annotated[float, Field(ge=0)] | None = None
    over_refusal_rise: Annotated[float, Field(ge=0)] | None = None
    red_team_rise: Annotated[float, Field(ge=0)] | None = None
    safety_cost_rise: Annotated[float, Field(ge=0)] | None = None
    repetition_rise: Annotated[float, Field(ge=0)] | None = None
    sameness_rise: Annotated[float, Field(ge=0)] | None = None
    flattery_rise: Annotated[float, Field(ge=0)] | None = None
    questions_rise: Annotated[float, Field(ge=0)] | None = None
    format_rise: Annotated[float, Field(ge=0)] | None = None
    sycophancy_rise: Annotated[float, Field(ge=0)] | None = None
    anchor: Annotated[float, Field(ge=1)] | None = None
    probes: Path | None = None
    """A JSONL file of probe prompts beside our own (see docs/training.md)."""
    probe_tokens: Count | None = None
    """Tokens, read and written, that a cycle spends on probes. None: all probes; of a larger model on the CPU 4,000."""

    def change(self, defaults: D) -> D:
        return replace(defaults, **{k: v for k, v in self.given().items() if k not in ("probes", "probe_tokens")})

    def probing(self, *, n_parameters: int, device: str) -> "Probing":
        """Which probes a cycle asks of a model of this size."""
        few = n_parameters > SMALL_MODEL and device.startswith("cpu")
        return Probing(file=self.probes, tokens=self.probe_tokens or (4_000 if few else None))


class Probing(BaseModel):
    """The probes of a cycle: a file beside our own, and how many tokens they may take (None: as many as there are)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    tokens: Count | None = None


class SourceWeightSettings(_Nested):
    """Changes to `trainer.core.weights.SourceWeights`, where each has its reason: what labels of a source count."""

    thumb: Weight | None = None
    label: Weight | None = None
    correction: Weight | None = None
    regenerate: Weight | None = None
    siblings: Weight | None = None
    same_prompt: Weight | None = None


class LoraOptions(BaseModel):
    """The policy's adapter: rank, scale, which matrices, and the share of layers (from the top) that get one.

    No `target_modules`: every linear layer. With attention alone the tiny model won 0.52 of its comparisons after the
    same training that brought it to 0.86 (experiment log); Schulman et al. 2025, "LoRA Without Regret", find the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: Count = 8
    alpha: Count = 16
    target_modules: tuple[str, ...] = ()
    top_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """None: half of the layers, or all of them in a toy, whose few layers have no half to spare."""

    def for_size(self, n_parameters: int) -> "LoraOptions":
        """The same with what was left to the size of the base model."""
        share = self.top_share or (0.5 if n_parameters > SMALL_MODEL else 1.0)
        return self.model_copy(update={"top_share": share})


class Limits(BaseModel):
    """How much of a long text is read: the end of a prompt, the beginning of an answer (tokens)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_tokens: Count = 384
    answer_tokens: Count = 256


class ExtraRewardInfo(BaseModel):
    """A reward of the user's own that took part in a training: what it was, and how much it counted.

    `sha256` is of a function's or a module's source file (and the module's weights); an endpoint has none, and what
    it answered can't be had again. `name` holds no credentials.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["function", "module", "endpoint"]
    name: str
    sha256: str | None
    weight: float
    ensemble_weight: float
    thumbs_ceiling: float


class SafetyFile(BaseModel):
    """A file of answers labelled safe or unsafe that a training read, and of how many rows of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    limit: int


class CycleConfig(BaseModel):
    """All that decides a cycle's result, beside the tables' versions, the parent and the base model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    split: SplitConfig
    reward: RewardConfig
    ppo: PPOConfig
    lora: LoraOptions
    gates: GateThresholds
    probes: Probing = Probing()
    limits: Limits
    budget: Budget
    dtype: str
    device: str
    threads: int
    method: Literal["ppo"] | Method = "ppo"
    """What trains the policy. Sampling and KL budget are those of `ppo` whatever it is."""
    direct: DirectConfig = DirectConfig()
    extra_reward: ExtraRewardInfo | None = None
    safety: SafetyConfig = SafetyConfig()
    safety_file: SafetyFile | None = None
    answers_per_held_out: int = 1
    processes: int = 1
    """Processes that shared the training; another number gives other roundings."""
    shard: Literal["none", "full"] = "none"
    generation: str | None = None
    """The address of the server that drew the answers PPO learned from; None: they were drawn by the trainer."""


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
    judge_only_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    rater_cap: Annotated[float, Field(gt=0, le=1)] = 0.01
    source_cap: Annotated[float, Field(gt=0, le=1)] = 0.7
    source_weights: SourceWeightSettings = SourceWeightSettings()
    min_labels: Count = 20
    max_labels: Count = 3000
    max_held_out_prompts: Count = 64
    answers_per_held_out: Count | None = None
    """Answers of each version to a held-out prompt, for the judge; None: one, and four of a toy, whose answers cost
    nothing."""
    max_cycle_seconds: Seconds = 3600.0
    max_cycle_tokens: Count = 20_000_000
    safety_data: Path | None = None
    """A file of answers labelled safe or unsafe (JSONL or .jsonl.gz: prompt, completion, unsafe), for the safety head
    beside what users flag."""
    max_safety_examples: Count = 2000
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
    feature_cache_mb: Annotated[int, Field(ge=0)] = 256
    """Features of answers that were read are kept for later cycles, in so many megabytes; 0 keeps none."""
    max_tries: Count = 3
    """Processes that may die of one cycle before it is given up."""
    signing_key_file: Path | None = None
    """Key (`thumbwheel cycles make-key`) by which versions are signed, and checked before they are used."""
    score_responses: Annotated[int, Field(ge=0)] = 64
    score_batch: Count = 16
    method: Literal["ppo"] | Method = "ppo"
    ppo: PPOSettings = PPOSettings()
    direct: DirectSettings = DirectSettings()
    distill: DistillSettings = DistillSettings()
    reward: RewardSettings = RewardSettings()
    reward_function: str | None = None
    """A reward of your own beside the reward model's: `module:name` or `path/to/file.py:name` of a function from
    prompts and completions (lists of str) to a list of floats. One of function, module and endpoint."""
    reward_module: str | None = None
    """The same for a function from a number of features to an `nn.Module` that maps features N,F to rewards N."""
    reward_module_weights: Path | None = None
    """Its weights (safetensors)."""
    reward_endpoint: str | None = None
    """The same by HTTP: POST {"prompts": [...], "completions": [...]} gives {"rewards": [...]}."""
    reward_endpoint_token: SecretStr | None = None
    reward_endpoint_token_file: Path | None = None
    reward_endpoint_seconds: Seconds = 60.0
    """For 64 answers, all tries together; then the cycle fails."""
    reward_endpoint_retries: Annotated[int, Field(ge=0, le=10)] = 2
    reward_extra_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    reward_ensemble_weight: Weight = 1.0
    """Of the reward model beside a reward of your own; 0 leaves that one alone."""
    thumbs_ceiling: Share = 0.5
    """Largest share of the reward model, which learned from thumbs, beside a reward of your own."""
    gates: GateSettings = GateSettings()
    lora: LoraOptions = LoraOptions()
    limits: Limits = Limits()
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    generation: Literal["own", "vllm"] = "own"
    """What draws the answers that PPO learns from: the trainer, or a vLLM server with the adapter loaded."""
    vllm_url: str | None = None
    """The server's address, for example http://127.0.0.1:8000."""
    vllm_token: SecretStr | None = None
    vllm_token_file: Path | None = None
    vllm_adapters: Path | None = None
    """A folder that the server reads under the same path; None: `vllm-adapters` in the data folder."""
    vllm_seconds: Seconds = 300.0
    """For one iteration's answers, all tries together; then the cycle fails."""
    vllm_retries: Annotated[int, Field(ge=0, le=10)] = 2
    log_level: str = "INFO"
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes of this machine that share a cycle's work, each with a copy of the base; started by torchrun they are
    as many as it says."""
    shard: Literal["none", "full"] = "none"
    """Of several processes: `full` cuts the base's blocks up over them (FSDP), for one that leaves no room."""
    peer_seconds: Seconds = 600.0
    """Of several processes: how long those of a cycle wait for one another before it fails; longer than a server of
    rewards or answers may take."""

    @property
    def registry(self) -> Path:
        """One folder a version."""
        return self.data / "registry"

    @property
    def cycles(self) -> Path:
        """One folder a cycle, and the lease."""
        return self.data / "cycles"

    @property
    def features(self) -> Path:
        """What is kept of answers that were read."""
        return self.data / "features"

    def torch_device(self) -> str | None:
        """The device as torch names it; None leaves the choice to the loader."""
        return None if self.device == "auto" else self.device

    def split(self) -> SplitConfig:
        """How labels are split."""
        return SplitConfig(
            holdout_share=self.holdout_share,
            judge_share=self.judge_share,
            judge_only_share=self.judge_only_share,
            rater_cap=self.rater_cap,
            source_cap=self.source_cap,
            source_weights=self.source_weights.change(SourceWeights()),
            min_labels=self.min_labels,
            max_labels=self.max_labels,
            max_held_out_prompts=self.max_held_out_prompts,
            seed=self.split_seed,
        )

    @model_validator(mode="after")
    def _server_is_known(self) -> Self:
        if self.generation == "vllm" and self.vllm_url is None:
            raise ValueError("THUMBWHEEL_GENERATION=vllm needs THUMBWHEEL_VLLM_URL")
        return self

    @model_validator(mode="after")
    def _one_reward(self) -> Self:
        given = (self.reward_function, self.reward_module, self.reward_endpoint)
        if sum(value is not None for value in given) > 1:
            raise ValueError("set one of THUMBWHEEL_REWARD_FUNCTION, _MODULE and _ENDPOINT")
        return self

    def extra_reward(
        self, kind: Literal["function", "module", "endpoint"], name: str, sha256: str | None
    ) -> ExtraRewardInfo:
        """How a record tells of the reward that these settings name."""
        return ExtraRewardInfo(
            kind=kind,
            name=name,
            sha256=sha256,
            weight=self.reward_extra_weight,
            ensemble_weight=self.reward_ensemble_weight,
            thumbs_ceiling=self.thumbs_ceiling,
        )

    def budget(self) -> Budget:
        """What one cycle may use."""
        return Budget(
            max_seconds=self.max_cycle_seconds,
            max_tokens=self.max_cycle_tokens,
            max_cost=self.max_cycle_cost,
            price_per_hour=self.price_per_hour,
        )

    def distill_config(self, n_parameters: int) -> DistillConfig:
        """How students learn from a teacher on a base model of this size; raises `ValueError`."""
        return self.distill.change(DistillConfig.for_size(n_parameters))

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

    def cycle_config(
        self,
        *,
        n_parameters: int,
        dtype: str,
        device: str,
        threads: int,
        seed: int,
        extra_reward: ExtraRewardInfo | None = None,
        safety_file: SafetyFile | None = None,
        processes: int = 1,
        generation: str | None = None,
    ) -> CycleConfig:
        """The configuration of one cycle on a base model of this size, with what "auto" came to."""
        return CycleConfig(
            seed=seed,
            split=self.split(),
            reward=self.reward.change(RewardConfig()),
            ppo=self.ppo.change(PPOConfig.for_size(n_parameters)),
            lora=self.lora.for_size(n_parameters),
            gates=self.gates.change(GateThresholds()),
            probes=self.gates.probing(n_parameters=n_parameters, device=device),
            limits=self.limits,
            budget=self.budget(),
            dtype=dtype,
            device=device,
            threads=threads,
            safety_file=safety_file,
            processes=processes,
            shard=self.shard if processes > 1 else "none",
            generation=generation,
            answers_per_held_out=self.answers_per_held_out or (1 if n_parameters > SMALL_MODEL else 4),
            method=self.method,
            direct=self.direct.change(DirectConfig.for_size(n_parameters)),
            extra_reward=extra_reward,
        )
