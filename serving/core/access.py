"""Who may do what: API keys, their scopes, and when keys are needed at all. Pure: `now` comes from outside."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from schemas.messages import Identifier
from serving.core.errors import AccessRefused

KEY_PREFIX = "twk_"
_KEY_FORM = re.compile(r"twk_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
_NOBODY = hashlib.sha256(b"").hexdigest()


class Scope(StrEnum):
    """What a key may be used for. `outputs` records answers that were given elsewhere; `models` lists models, and reads
    the metrics of a gateway that listens beyond this machine."""

    CHAT = "chat"
    FEEDBACK = "feedback"
    OUTPUTS = "outputs"
    MODELS = "models"


class AccessMode(StrEnum):
    """`auto`: keys are required where the gateway listens beyond this machine, or where a key was ever made."""

    AUTO = "auto"
    REQUIRED = "required"
    OPEN = "open"


class ApiKey(BaseModel):
    """A key as it is kept: only the hash of its secret.

    The hash is a plain SHA-256. Slow hashes (argon2, bcrypt) make guessing expensive where a password can be guessed.
    This secret is 256 random bits, which nobody guesses at any speed, and it is checked at every request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    name: Identifier
    secret_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    tenant: Identifier | None = None
    rate: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Requests a minute; None: the gateway's default."""
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class ApiKeys(BaseModel):
    """Every key that was ever made; revoked ones stay, so that what came by them can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Annotated[tuple[ApiKey, ...], Field(max_length=100_000)] = ()

    @model_validator(mode="after")
    def _distinct(self) -> "ApiKeys":
        if len({key.id for key in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same id")
        return self

    @cached_property
    def by_id(self) -> Mapping[str, ApiKey]:
        return {key.id: key for key in self.keys}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `key` None: nobody who is known, which is enough only for an open gateway or with a token."""

    key: ApiKey | None
    open: bool

    @property
    def tenant(self) -> str | None:
        return self.key.tenant if self.key else None

    @property
    def credential(self) -> str | None:
        return self.key.id if self.key else None

    @property
    def trusted(self) -> bool:
        """Whether what it says of its users is believed."""
        return self.open or self.key is not None


def keys_required(mode: AccessMode, *, loopback: bool, any_key: bool) -> bool:
    """Whether a request needs a credential. `any_key`: one was ever made, revoked ones too.

    Revoking the last key must not open what it had closed.
    """
    return mode is AccessMode.REQUIRED or (mode is AccessMode.AUTO and (not loopback or any_key))


def digest(secret: str) -> str:
    """How a secret is kept; see `ApiKey` for why a fast hash will do."""
    return hashlib.sha256(secret.encode()).hexdigest()


def key_text(key_id: str, secret: str) -> str:
    """A key as its owner holds it."""
    return f"{KEY_PREFIX}{key_id}_{secret}"


def looks_like_key(text: str) -> bool:
    """Whether it can only be meant as an API key."""
    return text.startswith(KEY_PREFIX)


def authenticate(presented: str, keys: ApiKeys, *, now: datetime) -> ApiKey:
    """The key that was presented; raises `AccessRefused` (`invalid_api_key`), in the same words whatever is wrong."""
    form = _KEY_FORM.fullmatch(presented)
    found = keys.by_id.get(form[1]) if form else None
    # Compared also where there is no such key: the time that it takes tells nothing.
    same = hmac.compare_digest(digest(form[2] if form else ""), found.secret_sha256 if found else _NOBODY)
    if found is None or not same or found.state(now) != "active":
        raise no_key(
            "the API key is not valid: unknown, expired or revoked; ask for a new one (thumbwheel keys create)"
        )
    return found


def check_scope(key: ApiKey, scope: Scope) -> None:
    """Raise `AccessRefused` (`insufficient_scope`) where the key may not be used for this."""
    if scope not in key.scopes:
        raise AccessRefused(f"this API key lacks the scope {scope.value}", code="insufficient_scope", status=403)


def no_key(message: str) -> AccessRefused:
    """A caller who is not known."""
    return AccessRefused(message, code="invalid_api_key", status=401)
