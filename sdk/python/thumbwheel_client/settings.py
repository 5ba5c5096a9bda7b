"""How a client behaves, read once: from the constructor's arguments, and from the environment where they are silent."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from thumbwheel_client.errors import SettingsError
from thumbwheel_client.events import purposes_of
from thumbwheel_client.outbox import Bounds
from thumbwheel_client.privacy import Redacting
from thumbwheel_client.retry import Backoff
from thumbwheel_client.transport import Target, target


class Behaviour(TypedDict, total=False):
    """What every client takes, whichever way its events go.

    `timeout`: seconds for one attempt, and for all attempts together in strict mode. `strict`: every call sends at once
    and raises. `purposes`: what your users have agreed to, unless a call says otherwise. `spool`: a folder that keeps
    what is not sent yet; `spool_bytes` bounds it, `fsync` has the disk confirm each batch. `max_waiting` and
    `max_waiting_bytes` bound what waits in memory, `max_age` (seconds) how old anything gets that waits. `redactor`: a
    `thumbwheel_redaction.Redactor`, to take personal data out before anything leaves the process.
    """

    timeout: float
    strict: bool
    purposes: Iterable[str] | None
    spool: str | os.PathLike[str] | None
    spool_bytes: int
    fsync: bool
    max_waiting: int
    max_waiting_bytes: int
    max_age: float
    backoff: Backoff
    redactor: Redacting | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The same, checked. `keyless`: there is no API key, so an answer's own feedback token goes along."""

    where: str
    timeout: float = 5.0
    strict: bool = False
    keyless: bool = False
    purposes: tuple[str, ...] | None = None
    spool: Path | None = None
    spool_bytes: int = 64 << 20
    fsync: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    backoff: Backoff = field(default_factory=Backoff)
    redactor: Redacting | None = None


def settings(where: str, given: Behaviour, *, keyless: bool) -> Settings:
    """The settings of a client that sends to `where`; raises `SettingsError`."""
    unknown = sorted(set(given) - set(Behaviour.__annotations__))
    if unknown:
        raise SettingsError(f"unknown setting {unknown[0]!r}; there are {', '.join(Behaviour.__annotations__)}")
    usual = Bounds()
    bounds = Bounds(
        max_events=given.get("max_waiting", usual.max_events),
        max_bytes=given.get("max_waiting_bytes", usual.max_bytes),
        max_age=given.get("max_age", usual.max_age),
    )
    spool = given.get("spool")
    made = Settings(
        where=where,
        timeout=given.get("timeout", 5.0),
        strict=given.get("strict", False),
        keyless=keyless,
        purposes=purposes_of(given.get("purposes")),
        spool=Path(spool).expanduser().absolute() if spool is not None else None,
        spool_bytes=given.get("spool_bytes", 64 << 20),
        fsync=given.get("fsync", False),
        bounds=bounds,
        backoff=given.get("backoff", Backoff()),
        redactor=given.get("redactor"),
    )
    for name, value in (("max_waiting", bounds.max_events), ("max_waiting_bytes", bounds.max_bytes)):
        if value < 1:
            raise SettingsError(f"{name} must be 1 or more, not {value}")
    for name, value in (("timeout", made.timeout), ("max_age", bounds.max_age), ("spool_bytes", made.spool_bytes)):
        if value <= 0:
            raise SettingsError(f"{name} must be more than 0, not {value:g}")
    return made


def http_target(url: str | None, api_key: str | None, timeout: float) -> Target:
    """Where to send to over HTTP: the arguments, else `THUMBWHEEL_URL` and `THUMBWHEEL_API_KEY`."""
    return target(
        url if url is not None else os.environ.get("THUMBWHEEL_URL"),
        api_key if api_key is not None else os.environ.get("THUMBWHEEL_API_KEY"),
        timeout,
    )


def default_redactor() -> Redacting:
    """The recognisers of `thumbwheel_redaction`; raises `SettingsError` where they are not installed."""
    try:
        from thumbwheel_redaction import Redactor
    except ImportError as error:
        raise SettingsError("Kafka needs an extra: pip install 'thumbwheel-client[kafka]'") from error
    return Redactor()
