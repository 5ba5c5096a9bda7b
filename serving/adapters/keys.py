"""The three secret files of the gateways: API keys, token keys, and the key of the pseudonyms.

    <data>/secrets/api_keys.json        hashes only; changed by `thumbwheel keys create` and `revoke`
    <data>/secrets/token_keys.json      made at the first start; changed by `thumbwheel keys rotate`
    <data>/secrets/pseudonym_key.json   made at the first start; never changed, or a user becomes another one

Gateways that share users need the same three files. They read the first two again when they change.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import SettingsError
from serving.adapters import secret_files
from serving.adapters.secret_files import WatchedFile
from serving.core.access import ApiKey, ApiKeys, Scope, digest, key_text
from serving.core.tokens import SigningKey, TokenKeys

M = TypeVar("M", bound=BaseModel)


class PseudonymKey(BaseModel):
    """The secret behind the hashes that stand for personal user ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: Annotated[str, Field(min_length=43, max_length=200, repr=False)]

    @property
    def key(self) -> bytes:
        return self.secret.encode()


def watched_api_keys(path: Path) -> WatchedFile[ApiKeys]:
    """The API keys; no file: none were made."""
    return WatchedFile(path, ApiKeys, if_missing=ApiKeys())


def watched_token_keys(path: Path, *, ours: bool) -> WatchedFile[TokenKeys]:
    """The token keys. Where the folder is `ours` the file is made if it is missing; else `SettingsError`."""
    if ours:
        secret_files.create_once(path, TokenKeys(keys=(new_signing_key(datetime.now(UTC)),)))
    return WatchedFile(_existing(path, "THUMBWHEEL_TOKEN_KEYS", "thumbwheel keys rotate"), TokenKeys)


def pseudonym_key(path: Path, *, ours: bool) -> PseudonymKey:
    """The key of the pseudonyms. Where the folder is `ours` the file is made if it is missing; else `SettingsError`."""
    if ours:
        secret_files.create_once(path, PseudonymKey(secret=secrets.token_urlsafe(32)))
    source = "a copy of <data>/secrets/pseudonym_key.json of the gateway that ran first"
    return secret_files.read(_existing(path, "THUMBWHEEL_PSEUDONYM_KEY", source), PseudonymKey)


def new_signing_key(now: datetime) -> SigningKey:
    """A fresh key; its id tells when it was made."""
    kid = f"{now.astimezone(UTC):%Y%m%d}-{secrets.token_hex(4)}"
    return SigningKey(kid=kid, secret=secrets.token_urlsafe(32), created=now)


def new_api_key(
    *,
    name: str,
    scopes: tuple[Scope, ...],
    tenant: str | None,
    rate: int | None,
    expires: datetime | None,
    now: datetime,
) -> tuple[ApiKey, str]:
    """A fresh key as it is kept, and the text that its owner gets, which is nowhere else."""
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    key = ApiKey(
        id=key_id, name=name, secret_sha256=digest(secret), scopes=scopes, tenant=tenant, rate=rate, created=now,
        expires=expires,
    )  # fmt: skip
    return key, key_text(key_id, secret)


def read_api_keys(path: Path) -> ApiKeys:
    """The keys in the file; none where there is no file. Raises `SettingsError`."""
    return secret_files.read(path, ApiKeys) if path.exists() else ApiKeys()


def change_api_keys(path: Path, change: Callable[[ApiKeys], ApiKeys]) -> None:
    """Replace the file by what `change` makes of it; two who change it at once do so one after the other."""
    with secret_files.locked(path):
        secret_files.replace(path, change(read_api_keys(path)))


def rotate_token_keys(path: Path, *, now: datetime, retire_after: timedelta | None) -> tuple[str, tuple[str, ...]]:
    """Add a fresh signing key; returns its id and the ids of the keys that were retired."""
    with secret_files.locked(path):
        new = new_signing_key(now)
        before = secret_files.read(path, TokenKeys) if path.exists() else None
        after, retired = before.rotated(new, retire_after=retire_after) if before else (TokenKeys(keys=(new,)), ())
        secret_files.replace(path, after)
    return new.kid, retired


def _existing(path: Path, setting: str, remedy: str) -> Path:
    if not path.exists():
        raise SettingsError(f"{setting} names {path}, which does not exist; put a file there: {remedy}")
    return path
