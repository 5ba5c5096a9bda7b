"""What clients get: OpenAI's chat completion, its chunks, the list of models, and errors, as plain JSON objects.

Extras carry the prefix `thumbwheel::`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from serving.core.generation import Piece
from serving.core.routing import PUBLIC_NAME, model_name

Json = dict[str, object]
ErrorType = Literal["invalid_request_error", "rate_limit_error", "server_error"]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of one response repeats. `created` is in Unix seconds."""

    response_id: str
    created: int
    version: str

    def fields(self, kind: str) -> Json:
        return {
            "id": self.response_id,
            "object": kind,
            "created": self.created,
            "model": model_name(self.version),
            "system_fingerprint": f"{PUBLIC_NAME}-{self.version}",
        }


TOKEN = "thumbwheel::feedback_token"  # noqa: S105 - the name of a field


def completion(head: Head, text: str, last: Piece, *, recorded: bool, token: str) -> Json:
    """The body of a plain answer."""
    choice: Json = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": last.finish_reason,
    }
    return head.fields("chat.completion") | {
        "choices": [choice],
        "usage": usage(last),
        "thumbwheel::version": head.version,
        "thumbwheel::recorded": recorded,
        TOKEN: token,
    }


def opening_chunk(head: Head, *, token: str, include_usage: bool) -> Json:
    """The first chunk of a stream: the role."""
    return _chunk(head, {"role": "assistant", "content": ""}, None, include_usage) | {TOKEN: token}


def text_chunk(head: Head, text: str, *, include_usage: bool) -> Json:
    """A chunk with the next stretch of text."""
    return _chunk(head, {"content": text}, None, include_usage)


def closing_chunk(head: Head, last: Piece, *, recorded: bool, token: str, include_usage: bool) -> Json:
    """The last chunk with a choice: why the answer ended."""
    extras: Json = {"thumbwheel::version": head.version, "thumbwheel::recorded": recorded, TOKEN: token}
    return _chunk(head, {}, last.finish_reason, include_usage) | extras


def usage_chunk(head: Head, last: Piece) -> Json:
    """The chunk after the last one, where the client asked for it."""
    no_choices: list[Json] = []
    return head.fields("chat.completion.chunk") | {"choices": no_choices, "usage": usage(last)}


def _chunk(head: Head, delta: Json, finish_reason: str | None, include_usage: bool) -> Json:
    choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    rest: Json = {"usage": None} if include_usage else {}
    return head.fields("chat.completion.chunk") | {"choices": [choice]} | rest


def usage(piece: Piece) -> Json:
    return {
        "prompt_tokens": piece.input_tokens,
        "completion_tokens": piece.output_tokens,
        "total_tokens": piece.input_tokens + piece.output_tokens,
    }


def recorded_output(response_id: str, token: str) -> Json:
    """The body of `POST /v1/outputs`."""
    return {"response_id": response_id, "status": "recorded", TOKEN: token}


def recorded_feedback(id: str, response_id: str) -> Json:
    """The body of `POST /v1/feedback`, and an item of a batch."""
    return {"id": id, "response_id": response_id, "status": "recorded"}


def models(names: Iterable[str], created: int) -> Json:
    """The body of `GET /v1/models`."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": PUBLIC_NAME} for name in names]
    return {"object": "list", "data": data}


def error(message: str, *, kind: ErrorType, code: str, param: str | None = None) -> Json:
    """The body of every refusal."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def sse(body: Mapping[str, object]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
