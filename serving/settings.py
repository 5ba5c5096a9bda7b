"""The settings of the gateway and of the rollout controller: the only reader of the environment in this service."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.connection import KafkaConnection
from schemas.errors import SettingsError

Seconds = Annotated[float, Field(gt=0, le=3600)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="THUMBWHEEL_", env_nested_delimiter="__", frozen=True, extra="ignore", allow_inf_nan=False
    )

    data: Path = Path(".thumbwheel")
    """The data folder; adapters are under `registry/` in it."""
    kafka: KafkaConnection = KafkaConnection()
    base_model: str = "models/smollm2"
    """A local folder or a Hugging Face id."""
    base_model_name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^:\s]+$")] = "smollm2"
    """Its public name: what `/v1/models` lists beside `thumbwheel`."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def registry(self) -> Path:
        return self.data / "registry"


class GatewaySettings(_Settings):
    """How the gateway listens, answers and records."""

    host: str = "127.0.0.1"
    port: Port = 8000
    """0 takes a free port; the log says which."""
    device: str = "auto"
    """As torch names it; `auto` takes CUDA if there is one."""
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    """`auto`: bfloat16 where the device multiplies it in hardware, else float32 (six times as fast there)."""
    threads: Annotated[int, Field(ge=0, le=256)] = 1
    """Torch threads; 0 leaves it to torch. On a machine shared with other processes one is fastest."""

    max_batch: Annotated[int, Field(ge=1, le=1024)] = 16
    """Answers that are generated at the same time, all versions together."""
    max_queue: Annotated[int, Field(ge=1)] = 128
    """Requests that may wait for a place in the batch; further ones are refused with 429."""
    max_context_tokens: Annotated[int, Field(ge=8)] = 2048
    """Prompt and completion together; less where the model itself allows less."""
    max_prefill_tokens: Annotated[int, Field(ge=8)] = 2048
    """Padded prompt tokens read in one go between two decoding steps: bounds how long running answers stall."""
    max_adapters: Annotated[int, Field(ge=2)] = 6
    """Adapters kept in memory at once."""
    pin_rejected: bool = False
    """Whether a request may pin a version that did not pass its gates (for evaluation)."""

    default_temperature: Annotated[float, Field(ge=0, le=2)] = 0.8
    default_max_tokens: Annotated[int, Field(ge=1)] = 128
    max_completion_tokens_limit: Annotated[int, Field(ge=1)] = 1024

    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    feedback_timeout_seconds: Seconds = 5.0
    """How long feedback waits for the broker before it is refused with 503."""
    output_buffer_events: Annotated[int, Field(ge=1)] = 20_000
    """Answers that wait for the broker in memory; beyond it they are not recorded (and say so)."""
    load_timeout_seconds: Seconds = 60.0
    shutdown_seconds: Seconds = 5.0
    """How long requests in flight may finish after SIGTERM."""


class RolloutSettings(_Settings):
    """How versions come into service."""

    promotion: Literal["auto", "manual"] = "auto"
    """`auto`: a version that passed all of its gates goes live. `manual`: `thumbwheel versions promote` decides."""
    publish_timeout_seconds: Seconds = 10.0
    metrics_port: Port = 0
    """0 turns the metrics page off."""


def load_gateway() -> GatewaySettings:
    """The gateway's settings from the environment; raises `SettingsError` with the variable to mend."""
    try:
        return GatewaySettings()
    except ValidationError as error:
        raise _readable(error) from error


def load_rollout() -> RolloutSettings:
    """The controller's settings from the environment; raises `SettingsError` with the variable to mend."""
    try:
        return RolloutSettings()
    except ValidationError as error:
        raise _readable(error) from error


def _readable(error: ValidationError) -> SettingsError:
    first = error.errors(include_url=False, include_input=False)[0]
    name = "THUMBWHEEL_" + "__".join(str(part) for part in first["loc"]).upper()
    return SettingsError(f"the setting {name} can't be used: {first['msg']}; correct it and start again")
