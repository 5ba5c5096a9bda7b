"""Feedback tokens: what lets a browser rate one answer and do nothing else.

A token is a JWT (RFC 7519) signed by HMAC-SHA-256. Its claims bind it to one response, a tenant, a user, the purposes
agreed to and the kinds of feedback that are permitted; its header names the signing key. It is signed, not encrypted:
who holds it can read it. Nothing here reads a clock; `now` is in Unix seconds.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

import jwt
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from schemas.consent import Purposes
from schemas.feedback import FeedbackKind
from schemas.ids import RESPONSE_ID_PATTERN
from schemas.messages import Identifier
from serving.core.errors import AccessRefused

ISSUER = "thumbwheel"
AUDIENCE = "feedback"
ALGORITHM = "HS256"
MAX_CHARACTERS = 4096
SETTLING = timedelta(seconds=10)
"""How long a new key only verifies: by then every gateway that reads the same file knows it."""

# The last of 43 characters carries 4 bits of the 32 bytes and 2 that decoders pass over. With those at 0 every
# signature has one spelling, so that no byte of a token can be altered without being noticed (PyJWT sees to it too, but
# only lately).
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)
_REQUIRED = ["iss", "aud", "sub", "act", "iat", "exp"]


class SigningKey(BaseModel):
    """A key that signs or has signed tokens. `secret` holds 256 random bits as text; its bytes are the HMAC key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kid: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    secret: Annotated[str, Field(min_length=43, max_length=200, repr=False)]
    created: AwareDatetime


class TokenKeys(BaseModel):
    """The keys that verify; the newest one that has settled signs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Annotated[tuple[SigningKey, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _distinct(self) -> "TokenKeys":
        if len({key.kid for key in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same kid")
        return self

    def find(self, kid: object) -> SigningKey | None:
        """The key of that id."""
        return next((key for key in self.keys if key.kid == kid), None)

    def signing(self, now: datetime) -> SigningKey:
        """The key that signs at this moment; while none has settled, the oldest, which others know soonest."""
        settled = [key for key in self.keys if key.created <= now - SETTLING]
        return max(settled, key=_created) if settled else min(self.keys, key=_created)

    def rotated(self, new: SigningKey, *, retire_after: timedelta | None = None) -> tuple["TokenKeys", tuple[str, ...]]:
        """The keys with a new one, and the ids of those retired: not signing for longer than `retire_after`.

        A key stopped signing when its successor was made. None retires none.
        """
        ordered = sorted((*self.keys, new), key=_created)
        retired = [
            key
            for key, successor in itertools.pairwise(ordered)
            if retire_after is not None and new.created - successor.created >= retire_after
        ]
        kept = tuple(key for key in ordered if key not in retired)
        return TokenKeys(keys=kept), tuple(key.kid for key in retired)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token permits: some kinds of feedback on one response, until `expires` (Unix seconds).

    `user` is counted as the one who speaks; `purposes` None: nothing was said.
    """

    response_id: str
    tenant: str | None
    user: str | None
    actions: frozenset[FeedbackKind]
    purposes: Purposes | None
    expires: int
    kid: str


class _Claims(BaseModel):
    """The payload of a token, as it is written. Claims that a later release adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sub: Annotated[str, Field(pattern=RESPONSE_ID_PATTERN)]
    tnt: Identifier | None = None
    act: frozenset[FeedbackKind]
    usr: Identifier | None = None
    pur: Purposes | None = None
    iat: StrictInt
    exp: StrictInt
    iss: Literal["thumbwheel"]
    aud: Literal["feedback"]


def issue(
    keys: TokenKeys,
    *,
    response_id: str,
    tenant: str | None,
    user: str | None,
    purposes: Purposes | None,
    actions: tuple[FeedbackKind, ...],
    lifetime: timedelta,
    now: datetime,
) -> str:
    """A token for one answer."""
    key = keys.signing(now)
    issued = int(now.timestamp())
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": response_id,
        "act": [kind.value for kind in actions],
        "iat": issued,
        "exp": issued + int(lifetime.total_seconds()),
    }
    optional: Mapping[str, object] = {"tnt": tenant, "usr": user, "pur": purposes}
    claims |= {name: value for name, value in optional.items() if value is not None}
    headers = {"kid": key.kid}
    return jwt.encode(claims, key.secret, algorithm=ALGORITHM, headers=headers)  # pyright: ignore[reportUnknownMemberType]


def looks_like_token(text: str) -> bool:
    """Whether it can only be meant as a token: three parts with dots between."""
    return text.count(".") == 2


def verify(token: str, keys: TokenKeys, *, now: float) -> Grant:
    """What the token permits; raises `AccessRefused` with `token_invalid` or `token_expired`.

    PyJWT checks signature (in constant time), algorithm, issuer and audience; the times are compared here, with `now`.
    """
    if len(token) > MAX_CHARACTERS or not _FORM.fullmatch(token):
        raise _invalid()
    try:
        key = keys.find(jwt.get_unverified_header(token).get("kid"))
        if key is None:
            raise _invalid()
        payload = jwt.decode(  # pyright: ignore[reportUnknownMemberType] - types of a package that is optional to it
            token,
            key.secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
        claims = _Claims.model_validate(payload)
    except (jwt.PyJWTError, ValidationError, ValueError, RecursionError) as error:
        # RecursionError: a header of a thousand brackets, which json can't read and nobody has signed.
        raise _invalid() from error
    if claims.exp <= now:
        raise AccessRefused(
            "the feedback token has expired; feedback on this answer is closed", code="token_expired", status=401
        )
    return Grant(claims.sub, claims.tnt, claims.usr, claims.act, claims.pur, claims.exp, key.kid)


def check_use(grant: Grant, *, response_id: str | None, kind: FeedbackKind) -> None:
    """Raise `AccessRefused` (`token_not_for_this`) for another response, or a kind that is not permitted."""
    if response_id is not None and response_id != grant.response_id:
        raise not_for_this("the feedback token belongs to another response; use the token that came with the answer")
    if kind not in grant.actions:
        raise not_for_this(f"the feedback token does not permit feedback of kind {kind.value}")


def not_for_this(message: str) -> AccessRefused:
    """A good token, used for what it doesn't permit."""
    return AccessRefused(message, code="token_not_for_this", status=403)


def _invalid() -> AccessRefused:
    return AccessRefused(
        "the feedback token is not valid; use the token that came with the answer, unchanged",
        code="token_invalid",
        status=401,
    )


def _created(key: SigningKey) -> datetime:
    return key.created
