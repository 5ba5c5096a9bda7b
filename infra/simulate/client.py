"""The gateway as a user's app sees it: real HTTP, with retries that wait as long as they are told to."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx

from schemas.errors import ThumbwheelError
from schemas.feedback import FeedbackKind

PATIENCE_SECONDS = 600.0
"""How long a request is tried: a gateway that is restarted is back by then, and an overloaded machine is only slow."""
LONGEST_WAIT = 5.0
RETRIED = frozenset({429, 502, 503, 504})


class GatewayFailed(ThumbwheelError):
    """The gateway refused what it should take, or didn't answer for long."""


@dataclass(frozen=True)
class Reply:
    """A completion, as far as a user cares."""

    response_id: str
    text: str
    version: str


class GatewayClient:
    """Asks and gives feedback. `retries` counts the requests that had to be sent again."""

    def __init__(self, url: str, *, patience: float = PATIENCE_SECONDS) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(300.0, connect=5.0))
        self._patience = patience
        self.retries = 0

    async def __aenter__(self) -> "GatewayClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(
        self,
        messages: list[dict[str, str]],
        *,
        model: str = "thumbwheel",
        temperature: float,
        max_completion_tokens: int,
        seed: int,
        store: bool = True,
        user: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Reply:
        """One answer; raises `GatewayFailed`."""
        body = {
            "model": model,
            "messages": messages,
            "temperature": temperature,
            "max_completion_tokens": max_completion_tokens,
            "seed": seed,
            "store": store,
            "user": user,
            "metadata": metadata,
        }
        answer = await self._post("/v1/chat/completions", {k: v for k, v in body.items() if v is not None})
        version = answer["model"].partition(":")[2]
        return Reply(answer["id"], answer["choices"][0]["message"]["content"] or "", version)

    async def say(
        self, response_id: str, kind: FeedbackKind, *, id: str, user: str | None = None, text: str | None = None
    ) -> int:
        """Give feedback under a stable id, so that a retry counts once. Returns how often it was sent."""
        body = {"response_id": response_id, "kind": kind.value, "id": id, "user": user, "text": text}
        before = self.retries
        await self._post("/v1/feedback", {k: v for k, v in body.items() if v is not None})
        return 1 + self.retries - before

    async def post_raw(self, path: str, content: bytes) -> int:
        """Send bytes as they are, once; the status. For what is bad on purpose."""
        headers = {"content-type": "application/json"}
        return (await self._http.post(path, content=content, headers=headers)).status_code

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        give_up, wait = clock() + self._patience, 0.1
        while True:
            problem, asked = "", None
            try:
                response = await self._http.post(path, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return response.json()
                problem = f"{response.status_code}: {response.text[:300]}"
                if response.status_code not in RETRIED:
                    raise GatewayFailed(f"the gateway refused POST {path} with {problem}; see its log")
                asked = _retry_after(response)
            if clock() > give_up:
                raise GatewayFailed(
                    f"POST {path} was tried for {self._patience:.0f} s without success (last: {problem}); "
                    "see the gateway's log"
                )
            self.retries += 1
            await asyncio.sleep(min(wait if asked is None else asked, LONGEST_WAIT))
            wait = min(wait * 2, LONGEST_WAIT)


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that the server asked to wait, where it said so."""
    try:
        return max(float(response.headers["retry-after"]), 0.05)
    except (KeyError, ValueError):
        return None
