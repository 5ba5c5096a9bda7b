"""What clients send: OpenAI's chat completions request, as a closed model.

Fields that the official clients send by habit are known and must have the value that means "nothing special";
an unknown field is refused by name, so that a typing mistake doesn't silently change an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.messages import ChatMessage, Identifier, Text
from serving.core.generation import Sampling
from serving.core.metadata import Metadata, understood

T = TypeVar("T", bound=BaseModel)


class RequestRefused(Exception):
    """A request that can't be answered as it is. Becomes a 4xx in OpenAI's error form."""

    def __init__(self, message: str, *, code: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.status = status


class ClosedRequest(BaseModel):
    """A body whose unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(ClosedRequest):
    """A message's content in parts; only text is understood."""

    type: Literal["text"]
    text: Text


class RequestMessage(ClosedRequest):
    """One turn. `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: Identifier | None = None

    def chat_message(self) -> ChatMessage:
        content = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return ChatMessage(role="system" if self.role == "developer" else self.role, content=content)


class StreamOptions(ClosedRequest):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Stop = Annotated[str, Field(min_length=1, max_length=200)]
Limit = Annotated[int, Field(ge=1, le=1_000_000)]

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "verbosity": (),
}
"""OpenAI's fields that this gateway doesn't act on, with the values (beside null) that ask for nothing."""


class ChatRequest(ClosedRequest):
    """The body of `POST /v1/chat/completions`."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    messages: Annotated[list[RequestMessage], Field(min_length=1, max_length=200)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Identifier | None = None
    safety_identifier: Identifier | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    # Known, and harmless whatever they say.
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    parallel_tool_calls: bool | None = None
    # Known, and only accepted with a value that asks for nothing: see _NEUTRAL.
    n: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None

    @field_validator("metadata")
    @classmethod
    def _understood_metadata(cls, metadata: dict[str, str] | None) -> dict[str, str] | None:
        return understood(metadata)

    @model_validator(mode="after")
    def _says_something(self) -> "ChatRequest":
        if not any(m.content.strip() for m in self.chat_messages()):
            raise ValueError("the prompt is empty: at least one message needs text")
        return self

    def chat_messages(self) -> tuple[ChatMessage, ...]:
        return tuple(message.chat_message() for message in self.messages)

    @property
    def user_id(self) -> str | None:
        return self.safety_identifier or self.user


def parse(kind: type[T], body: bytes) -> T:
    """The request in `body`; raises `RequestRefused`."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise refused_by(error) from error


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway fills in and allows."""

    default_temperature: float
    default_max_tokens: int
    max_completion_tokens: int


def sampling(request: ChatRequest, limits: Limits) -> Sampling:
    """How to draw the answer; raises `RequestRefused` for what the gateway doesn't do."""
    refuse_unsupported(request)
    asked = request.max_completion_tokens or request.max_tokens
    if asked is not None and asked > limits.max_completion_tokens:
        raise RequestRefused(
            f"max_completion_tokens is {asked}, this gateway allows up to {limits.max_completion_tokens}",
            code="invalid_value",
            param="max_completion_tokens" if request.max_completion_tokens else "max_tokens",
        )
    stop = request.stop or ()
    return Sampling(
        temperature=limits.default_temperature if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        max_tokens=asked or min(limits.default_max_tokens, limits.max_completion_tokens),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=request.seed,
    )


def refuse_unsupported(request: ChatRequest) -> None:
    """Raise `RequestRefused` where a field asks for something that this gateway can't do."""
    for name, harmless in _NEUTRAL.items():
        value: object = getattr(request, name)
        if value is not None and not any(type(value) is type(h) or _number(value) for h in harmless if h == value):
            choices = " or ".join(["left out", *map(repr, harmless)])
            raise RequestRefused(
                f"{name} is not supported by this gateway; it must be {choices}", code="unsupported_value", param=name
            )


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_CODES = {
    "json_invalid": "invalid_json",
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "value_error": "invalid_value",
}


def refused_by(error: ValidationError) -> RequestRefused:
    """The refusal that names the field to mend; it never repeats what was sent."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    # Of a union's several complaints the first is for its first member, which is the plain form.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    param = ".".join(map(str, _path(first["loc"]))) or None
    code = _CODES.get(first["type"], "invalid_type" if first["type"].endswith("_type") else "invalid_value")
    if code == "invalid_json":
        return RequestRefused(
            f"the body is not valid JSON in UTF-8: {first['msg'].removeprefix('Invalid JSON: ')}", code=code
        )
    if code == "unknown_field":
        return RequestRefused(f"unrecognized field: {param}", code=code, param=param)
    message = first["msg"].removeprefix("Value error, ")
    return RequestRefused(f"{param}: {message}" if param else message, code=code, param=param)


def _path(location: Sequence[int | str]) -> list[int | str]:
    """The field's path as the client wrote it, without pydantic's names for the members of a union."""
    return [part for part in location if isinstance(part, int) or part.replace("_", "").isalnum()]
