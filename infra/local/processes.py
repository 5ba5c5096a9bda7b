"""The process table: what runs on one machine, as data, and what each process is told through its environment."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.connection import KafkaConnection
from schemas.errors import SettingsError


@dataclass(frozen=True)
class Process:
    """`python -m <module> <program>`. `metrics`: it serves a metrics port of its own (the gateway has `/metrics`)."""

    name: str
    module: str
    program: str
    what: str
    metrics: bool = True
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it is told beside the settings that all share."""

    def command(self) -> tuple[str, ...]:
        """The command line, with this very Python. -P: a folder of the same name where the user stands is not ours."""
        return (sys.executable, "-P", "-m", self.module, self.program)


# In the order of starting. None waits for another: each meets the others in topics and tables, and may die at any time.
PROCESSES = (
    # Of each there is one here: as a static member it takes its partitions again at once when it is started anew.
    Process(
        "ingest",
        "streams",
        "ingest",
        "events into bronze tables, exactly once",
        environment={"THUMBWHEEL_INSTANCE_ID": "ingest-0"},
    ),
    Process("refine", "streams", "refine", "bronze into ratings, preferences and label tasks"),
    Process(
        "agents",
        "streams",
        "agents",
        "live indicators by version",
        environment={"THUMBWHEEL_AGENTS_INSTANCE_ID": "agents-0"},
    ),
    Process("gateway", "serving", "gateway", "answers chat completions, takes feedback", metrics=False),
    Process("rollout", "serving", "rollout", "decides which model version serves"),
    Process("trainer", "trainer", "run", "update cycles"),
)
BY_NAME = {process.name: process for process in PROCESSES}

# The processes share the cores: one thread each is faster than many that wait for one another.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")


@dataclass(frozen=True)
class Model:
    """The base model: its public name, and the folder or Hugging Face id to load it by."""

    name: str
    source: str


def public_name(model: str) -> str:
    """How a model is called in requests and events: its name, or the last part of its path or id."""
    return Path(model).name.replace(":", "-").replace(" ", "-") or "model"


def environment(*, data: Path, kafka: KafkaConnection, model: Model) -> dict[str, str]:
    """What every process is told: the data folder, the broker, the base model."""
    offline = {"HF_HUB_OFFLINE": "1"} if Path(model.source).is_dir() else {}
    return {
        **_THREADS,
        **offline,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        "THUMBWHEEL_DATA": str(data.resolve()),
        "THUMBWHEEL_BASE_MODEL": model.source,
        "THUMBWHEEL_BASE_MODEL_NAME": model.name,
        **kafka_environment(kafka),
    }


def kafka_environment(kafka: KafkaConnection) -> dict[str, str]:
    """The connection as environment variables. A password goes by the environment, never by a command line."""
    values = {name: value for name in type(kafka).model_fields if (value := getattr(kafka, name)) is not None}
    if kafka.sasl_password is not None:
        values["sasl_password"] = kafka.sasl_password.get_secret_value()
    return {f"THUMBWHEEL_KAFKA__{name.upper()}": str(value) for name, value in values.items()}


def environments(
    shared: Mapping[str, str], overrides: Mapping[str, Mapping[str, str]], metrics_ports: Mapping[str, int]
) -> dict[str, dict[str, str]]:
    """The environment of each process by name: what all share, its metrics port, then what it alone is told.

    Raises `SettingsError` for an override of a process that isn't in the table.
    """
    unknown = set(overrides) - set(BY_NAME)
    if unknown:
        raise SettingsError(f"there is no process {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}")
    ports = {name: {"THUMBWHEEL_METRICS_PORT": str(port)} for name, port in metrics_ports.items()}
    return {
        name: {**shared, **ports.get(name, {}), **process.environment, **overrides.get(name, {})}
        for name, process in BY_NAME.items()
    }
