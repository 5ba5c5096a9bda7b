"""What a demo can be told, and how it is tuned for its model."""

from dataclasses import dataclass
from pathlib import Path

from infra.simulate import tastes
from schemas.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The command line of `thumbwheel demo`. `data` None: a new folder `runs/demo-<time>`.

    `plain` writes lines instead of the live view, as is done wherever the output is no terminal.
    """

    model: str = "smollm2"
    taste: str = tastes.DEFAULT
    cycles: int = 2
    users: int = 40
    noise: float = 0.2
    spammers: int = 3
    seed: int = 0
    bootstrap_servers: str | None = None
    data: Path | None = None
    plain: bool = False

    def __post_init__(self) -> None:
        checks = (
            (1 <= self.cycles <= 50, "--cycles must be between 1 and 50", self.cycles),
            (1 <= self.users <= 10_000, "--users must be between 1 and 10000", self.users),
            (
                0 <= self.noise < 0.5,
                "--noise must be at least 0 and below 0.5 (a coin says nothing)",
                self.noise,
            ),
            (0 <= self.spammers <= 1_000, "--spammers must be between 0 and 1000", self.spammers),
            (self.seed >= 0, "--seed must not be negative", self.seed),
        )
        for holds, message, value in checks:
            if not holds:
                raise SettingsError(f"{message}; it is {value}")


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What makes a demo of one model long enough to learn and short enough to watch.

    `environment` goes to the services. Sampling is that of production, of training and of evaluation alike.
    """

    instruction: str | None
    temperature: float
    max_completion_tokens: int
    concurrency: int
    first_thumbs_after: int
    """Answers seen before the first thumb: users learn what to expect (see `users.scale_of`)."""
    closing_answers: int
    """Answers of the last version, after the last cycle: without them it would have no preference rate."""
    trickle: float
    """Visits in a second while a cycle trains: the cores are the trainer's then."""
    evaluation_samples: int
    """Answers of each version to each held-out prompt."""
    cycle_timeout_seconds: float
    """From the end of one cycle to the end of the next; beyond it the demo gives up and says where to look."""
    environment: dict[str, str]
    trainer_processes: int = 1
    """That share a cycle; no more of them are started than there are cores."""

    def told(self, cores: int) -> dict[str, str]:
        """What the services are told by it on a machine with so many cores."""
        return self.environment | {"THUMBWHEEL_PROCESSES": str(min(self.trainer_processes, cores))}


SMOLLM2 = Tuning(
    # Without it the base model rambles into the token limit in 98 of 100 answers, and a reward has nothing to prefer.
    instruction="Answer in one short sentence.",
    temperature=0.8,
    max_completion_tokens=24,
    # A decoding step of 32 rows costs 1.6 times one of 16 in float32 on AVX2.
    concurrency=32,
    first_thumbs_after=32,
    closing_answers=60,
    # Each visit costs seconds of a core, and beside a cycle everything else should take little of the two.
    trickle=0.03,
    evaluation_samples=1,
    cycle_timeout_seconds=1200,
    environment={
        "THUMBWHEEL_MIN_NEW_PREFERENCES": "220",
        # Of few labels most must teach: with the defaults it would be less than half of them.
        "THUMBWHEEL_HOLDOUT_SHARE": "0.2",
        "THUMBWHEEL_JUDGE_SHARE": "0.3",
        "THUMBWHEEL_MAX_HELD_OUT_PROMPTS": "40",
        "THUMBWHEEL_MAX_BATCH": "32",
        # Some hundred labels and 40 prompts seldom make the judge surer of a step that is small.
        "THUMBWHEEL_GATES__WIN_CERTAINTY": "0.7",
        # Three iterations win 0.79 of comparisons over the base, five 0.89; but the demo's cycles shall end in minutes.
        "THUMBWHEEL_PPO__ITERATIONS": "3",
        # Joining and aggregating every two seconds takes a fifth of a core from the models.
        "THUMBWHEEL_REFINE_SECONDS": "5",
    },
    # While a cycle trains hardly anybody asks (`trickle`), so the gateway's core is idle. Two processes with a thread
    # each, because threads wait for one another in every product of a few rows (docs/experiments.md).
    trainer_processes=2,
)

TINY = Tuning(
    instruction=None,
    temperature=0.8,
    max_completion_tokens=24,
    concurrency=16,
    first_thumbs_after=40,
    closing_answers=120,
    trickle=4.0,
    evaluation_samples=4,
    cycle_timeout_seconds=300,
    # The tiny model answers fast, and its reward model needs the numbers: with 300 labels its gates are luck.
    environment={"THUMBWHEEL_MIN_NEW_PREFERENCES": "800"},
)


def tuning_for(model: str) -> Tuning:
    """The tuning for a model; whatever is not the tiny one is taken for one of SmolLM2's kind."""
    return TINY if model == "tiny" else SMOLLM2
