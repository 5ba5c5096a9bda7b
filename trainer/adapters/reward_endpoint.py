"""An HTTP endpoint that rates answers: POST {"prompts": [...], "completions": [...]} gives {"rewards": [...]}.

Every call has a deadline for all its tries together, whatever the other side does: a socket that is open and says
nothing, or says a byte now and then, is closed from outside when its time is up. Connections go straight to the
address; redirects are not followed, so that a token goes nowhere else.
"""

import contextlib
import http.client
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from torch import Tensor

from schemas.errors import RewardFailed, SettingsError
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
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("THUMBWHEEL_REWARD_ENDPOINT must be a URL that begins with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise SettingsError(
                "THUMBWHEEL_REWARD_ENDPOINT must hold no user and password: put a bearer token into "
                "THUMBWHEEL_REWARD_ENDPOINT_TOKEN_FILE"
            )
        if token is not None and (not token.isascii() or not token.isprintable()):
            raise SettingsError("the token of the reward endpoint must be one line of printable ASCII")
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        self._token, self._seconds, self._tries = token, seconds, tries
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
        exchange = _Exchange(self._connection(seconds), self._path, body, self._headers(), limit)
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

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        return headers if self._token is None else headers | {"Authorization": f"Bearer {self._token}"}

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context)

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


@dataclass(frozen=True)
class _Reply:
    status: int
    body: bytes
    cut_off: bool


class _Exchange:
    """One request and its reply, in a thread of its own: resolving, shaking hands and reading all end in time."""

    def __init__(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str], limit: int
    ) -> None:
        self._connection, self._limit = connection, limit
        self._request = (path, body, headers)
        self._socket: socket.socket | None = None
        self._box: queue.SimpleQueue[_Reply | Exception] = queue.SimpleQueue()

    def result(self, seconds: float) -> _Reply | Exception:
        """The reply, or why there is none; what is still under way after `seconds` is cut off and forgotten."""
        threading.Thread(target=self._run, name="reward-endpoint", daemon=True).start()
        try:
            return self._box.get(timeout=seconds)
        except queue.Empty:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            return TimeoutError(f"no whole reply in {seconds:.2g} s")

    def _run(self) -> None:
        try:
            self._box.put(self._exchanged())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._box.put(error)

    def _exchanged(self) -> _Reply:
        path, body, headers = self._request
        with contextlib.closing(self._connection) as connection:
            connection.connect()
            self._socket = connection.sock  # the connection lets go of it once the reply has begun
            connection.request("POST", path, body=body, headers=headers)
            with connection.getresponse() as response:
                read = response.read(self._limit + 1)
                return _Reply(response.status, read, bool(response.length))
