"""Lets callers in: by API key, by feedback token, or because the gateway is open. The files, the clock and the counts
around the decisions of `serving.core.access` and `serving.core.tokens`."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.consent import Purposes
from schemas.feedback import FeedbackKind
from serving.adapters.secret_files import WatchedFile
from serving.core import access, tokens
from serving.core.access import AccessMode, ApiKey, ApiKeys, Caller, Scope
from serving.core.errors import AccessRefused, RateLimited
from serving.core.rates import Rates, network_of
from serving.core.tokens import Grant, TokenKeys

LOCAL = frozenset({"127.0.0.1", "::1", ""})
NO_KEY = "this gateway needs an API key (thumbwheel keys create); send it as `Authorization: Bearer twk_...`"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """The settings that decide who may do what; `loopback`: the gateway can only be reached from its own machine."""

    mode: AccessMode = AccessMode.AUTO
    loopback: bool = True
    key_rate: int = 6_000
    address_rate: int = 600
    token_lifetime: timedelta = timedelta(days=30)
    token_actions: tuple[FeedbackKind, ...] = tuple(FeedbackKind)
    origins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Asking:
    """What a request shows of who sends it: three headers' worth, and where it comes from."""

    authorization: str = ""
    address: str = ""
    origin: str | None = None

    @property
    def bearer(self) -> str:
        scheme, _, credential = self.authorization.partition(" ")
        return credential.strip() if scheme.lower() == "bearer" else ""

    @property
    def token(self) -> str | None:
        """The bearer, where it can only be meant as a feedback token."""
        return bearer if tokens.looks_like_token(bearer := self.bearer) else None


class Gatekeeper:
    """Raises `AccessRefused` and `RateLimited`. Rates are counted in this process alone, on the event loop's thread."""

    def __init__(
        self,
        policy: AccessPolicy,
        *,
        api_keys: WatchedFile[ApiKeys],
        token_keys: WatchedFile[TokenKeys],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self._api_keys = api_keys
        self._token_keys = token_keys
        self._now = now
        self._clock = clock
        self._rates = Rates()

    @property
    def keys_required(self) -> bool:
        """Whether a request needs a credential now."""
        any_key = bool(self._api_keys.content().keys)
        return access.keys_required(self.policy.mode, loopback=self.policy.loopback, any_key=any_key)

    def problems(self) -> dict[str, str | None]:
        """What is wrong with the files of the keys, where something is."""
        return {"api_keys": self._api_keys.problem, "token_keys": self._token_keys.problem}

    def admit(self, asking: Asking, scope: Scope) -> Caller:
        """The caller of a request that needs `scope`, counted towards their rate."""
        if access.looks_like_key(bearer := asking.bearer):
            return Caller(self._known(bearer, scope), open=False)
        if self.keys_required:
            raise access.no_key(NO_KEY)
        self.check_origin(asking)
        self._count_address(asking, open=True)
        return Caller(None, open=True)

    def visitor(self, asking: Asking) -> Caller:
        """The caller of a request that a feedback token would do for; the token itself is looked at later."""
        if access.looks_like_key(bearer := asking.bearer):
            return Caller(self._known(bearer, Scope.FEEDBACK), open=False)
        caller = Caller(None, open=not self.keys_required)
        self._count_address(asking, open=caller.open)
        return caller

    def count_more(self, asking: Asking, caller: Caller, cost: int) -> None:
        """Count what came in one request beyond the first item; an API key is counted by requests alone."""
        if caller.key is None and cost:
            self._count_address(asking, open=caller.open, cost=cost)

    def check_origin(self, asking: Asking) -> None:
        """Refuse the page of a strange web site that a user of this machine looks at: browsers let it send.

        Only an open gateway needs it: elsewhere such a page has no key.
        """
        if asking.origin is not None and not {asking.origin, "*"} & self.policy.origins:
            raise AccessRefused(
                "web pages of this origin may not call an open gateway; add it to THUMBWHEEL_FEEDBACK_ORIGINS",
                code="origin_not_allowed",
                status=403,
            )

    def grant(self, token: str) -> Grant:
        """What a feedback token permits."""
        return tokens.verify(token, self._token_keys.content(), now=self._now().timestamp())

    def token(self, response_id: str, *, caller: Caller, user: str | None, purposes: Purposes) -> str:
        """The feedback token that goes out with an answer."""
        return tokens.issue(
            self._token_keys.content(),
            response_id=response_id,
            tenant=caller.tenant,
            user=user,
            purposes=purposes,
            actions=self.policy.token_actions,
            lifetime=self.policy.token_lifetime,
            now=self._now(),
        )

    def _known(self, presented: str, scope: Scope) -> ApiKey:
        key = access.authenticate(presented, self._api_keys.content(), now=self._now())
        access.check_scope(key, scope)
        self._count(f"key:{key.id}", key.rate or self.policy.key_rate)
        return key

    def _count_address(self, asking: Asking, *, open: bool, cost: int = 1) -> None:
        if not (open and asking.address in LOCAL):
            self._count(f"from:{network_of(asking.address)}", self.policy.address_rate, cost)

    def _count(self, caller: str, per_minute: int, cost: int = 1) -> None:
        wait = self._rates.take(caller, per_minute=per_minute, now=self._clock(), cost=cost)
        if wait > 0:
            raise RateLimited(
                f"more than {per_minute} requests a minute; try again in {math.ceil(wait)} s", retry_after=wait
            )
