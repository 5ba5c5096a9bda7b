"""An HTTP endpoint that rates answers: POST {"prompts": [...], "completions": [...]} gives {"rewards": [...]}.

Every call has a deadline for all its tries together, whatever the other side does: a socket that is open and says
nothing, or says a byte now and then, is closed from outside when its time is up. Connections go straight to the
address; redirects are not followed, so that a token goes nowhere else.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from schemas.errors import RewardFailed
from trainer.adapters.exchange import Address, Exchange
from trainer.core.rewards import usable

ANSWERS_PER_CALL = 64
BYTES_PER_ANSWER = 1024
"""No number with its comma is longer; a larger reply is not read to its end."""
FIRST_WAIT_SECONDS = 0.25


class _Again(Exception):
    """The endpoint may do better when asked again."""


class Endpoint:
    """`seconds` is the limit of a call with all its tries; each try has an equal part of it."""

    def __init__(self, url: str, *, token: str | None, seconds: float, tries: int) -> None:
        self._address = Address.of(url, setting="THUMBWHEEL_REWARD_ENDPOINT", token=token)
        self.shown = self._address.shown
        self._seconds, self._tries = seconds, tries
        self._who = f"the reward endpoint {self.shown}"

    def __call__(self, features_NF: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """One reward an answer; raises `RewardFailed`, within `seconds` for each `ANSWERS_PER_CALL` answers."""
        found: list[float] = []
        for start in range(0, len(texts), ANSWERS_PER_CALL):
            part = slice(start, start + ANSWERS_PER_CALL)
            found += self._asked(prompts[part], texts[part])
        return found

    def _asked(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        body = json.dumps({"prompts": list(prompts), "completions": list(texts)}).encode()
        end, wait, why = time.monotonic() + self._seconds, FIRST_WAIT_SECONDS, ""
        for attempt in range(self._tries):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                reply = self._posted(body, len(texts), left / (self._tries - attempt))
            except _Again as error:
                why = str(error)
                if attempt + 1 < self._tries:
                    time.sleep(max(0.0, min(wait, end - time.monotonic())))
                wait *= 2
            else:
                return self._rewards(reply, len(texts))
        raise RewardFailed(
            f"{self._who} gave no rewards in {self._tries} tries within {self._seconds:g} s (the last: {why}): "
            "see to it, or raise THUMBWHEEL_REWARD_ENDPOINT_SECONDS"
        )

    def _posted(self, body: bytes, n: int, seconds: float) -> bytes:
        """The reply's bytes; raises `_Again` where another try may help and `RewardFailed` where not."""
        limit = 1024 + BYTES_PER_ANSWER * n
        exchange = Exchange(self._address, self._address.path, body, limit=limit, seconds=seconds)
        found = exchange.result(seconds)
        if isinstance(found, Exception):
            raise _Again(f"{type(found).__name__}: {found}") from found
        if found.status == 429 or found.status >= 500:
            raise _Again(f"status {found.status}")
        if found.status != 200:
            raise RewardFailed(f"{self._who} answered with status {found.status}: it must be 200")
        if len(found.body) > limit:
            raise RewardFailed(f"{self._who} gave more than {limit} bytes for {n} answers: give the rewards alone")
        if found.cut_off:
            raise _Again("the reply was cut off")
        return found.body

    def _rewards(self, reply: bytes, n: int) -> list[float]:
        try:
            told: Any = json.loads(reply)
        except (ValueError, RecursionError) as error:
            raise RewardFailed(f"{self._who} gave no JSON: {error}") from error
        rewards = cast("dict[str, Any]", told).get("rewards") if isinstance(told, dict) else None
        if not isinstance(rewards, list) or any(
            isinstance(value, bool) or not isinstance(value, int | float) for value in cast("list[Any]", rewards)
        ):
            raise RewardFailed(f'{self._who} must give {{"rewards": [...]}} with a list of numbers')
        return usable(cast("list[Any]", rewards), n, self._who)
