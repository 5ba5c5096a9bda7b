"""What can be said of an answer: one method each, the same in both clients and in a batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TypedDict, Unpack, cast

from thumbwheel_client.errors import InvalidEvent
from thumbwheel_client.events import THUMBS, Feedback, Kind, purposes_of
from thumbwheel_client.ids import new_event_id
from thumbwheel_client.receipts import Receipt
from thumbwheel_client.trace import current_traceparent

EXTRA = "thumbwheel::"
"""What the gateway's own fields of an answer begin with."""
TOKEN_FIELD = f"{EXTRA}feedback_token"


class Options(TypedDict, total=False):
    """What every verb takes beside the answer.

    `user`: who says it; `purposes`: what they agreed to, `training` and `labeling` (an empty list: no to both);
    `id`: an idempotency key of your own; `traceparent`: a W3C trace context (else OpenTelemetry's current span);
    `token`: the answer's feedback token, where there is no API key; `strict`: send at once and raise.
    """

    user: str | None
    purposes: Iterable[str] | None
    id: str | None
    traceparent: str | None
    token: str | None
    strict: bool | None


class Verbs(ABC):
    """`answer` is a response id, or an object of the openai library: a completion, a choice, a stream or a chunk."""

    def thumbs_up(self, answer: object, *, text: str | None = None, **options: Unpack[Options]) -> Receipt:
        """The user likes the answer; `text` may say why."""
        return self._say(Kind.THUMBS_UP, answer, text, options)

    def thumbs_down(self, answer: object, *, text: str | None = None, **options: Unpack[Options]) -> Receipt:
        """The user dislikes the answer; `text` may say why."""
        return self._say(Kind.THUMBS_DOWN, answer, text, options)

    def withdraw(self, answer: object, **options: Unpack[Options]) -> Receipt:
        """The user takes back their thumb."""
        return self._say(Kind.WITHDRAWAL, answer, None, options)

    def change(self, answer: object, to: Kind | str, *, text: str | None = None, **options: Unpack[Options]) -> Receipt:
        """The user turns their thumb to `to`, `thumbs_up` or `thumbs_down`: the later one of a user counts."""
        kind = to if to in THUMBS else f"thumb {to}"  # refused by name, as any unknown kind is
        return self._say(kind, answer, text, options)

    def comment(self, answer: object, text: str, **options: Unpack[Options]) -> Receipt:
        """Words about the answer."""
        return self._say(Kind.COMMENT, answer, text, options)

    def correct(self, answer: object, text: str, **options: Unpack[Options]) -> Receipt:
        """What the answer should have been. It becomes a training pair in which the correction is chosen."""
        return self._say(Kind.CORRECTION, answer, text, options)

    def flag(self, answer: object, *, text: str | None = None, **options: Unpack[Options]) -> Receipt:
        """The answer should be looked at: harmful, private, wrong; `text` may say what."""
        return self._say(Kind.FLAG, answer, text, options)

    def copied(self, answer: object, *, text: str | None = None, **options: Unpack[Options]) -> Receipt:
        """The user copied the answer, or the part of it in `text`."""
        return self._say(Kind.COPY, answer, text, options)

    def edited(self, answer: object, text: str, **options: Unpack[Options]) -> Receipt:
        """The user edited the answer into `text` before using it."""
        return self._say(Kind.EDIT, answer, text, options)

    def regenerated(self, answer: object, **options: Unpack[Options]) -> Receipt:
        """The user asked for another answer instead of this one."""
        return self._say(Kind.REGENERATE, answer, None, options)

    @abstractmethod
    def _say(self, kind: Kind | str, answer: object, text: str | None, options: Options) -> Receipt: ...


def response_id_of(answer: object) -> str:
    """The id under which Thumbwheel knows the answer; raises `InvalidEvent` where the object says none."""
    if isinstance(answer, str):
        return answer
    for name in ("thumbwheel_id", "id"):
        value = getattr(answer, name, None)
        if isinstance(value, str):
            return value
    raise InvalidEvent(
        f"a {type(answer).__name__} names no answer: pass a response id or what the openai client returned"
    )


def extras_of(answer: object) -> Mapping[str, object]:
    """The fields of an openai object that its library doesn't know."""
    extras = getattr(answer, "model_extra", None)
    return cast(Mapping[str, object], extras) if isinstance(extras, Mapping) else {}


def token_in(answer: object) -> str | None:
    """The feedback token that an answer of the gateway carries."""
    value = extras_of(answer).get(TOKEN_FIELD) or getattr(answer, "thumbwheel_token", None)
    return value if isinstance(value, str) else None


def feedback_from(
    kind: Kind | str,
    answer: object,
    text: str | None,
    options: Options,
    *,
    purposes: tuple[str, ...] | None,
    keyless: bool,
) -> Feedback:
    """The event of one call; raises `InvalidEvent`. `purposes` are the client's; without an API key (`keyless`) the
    answer's own token goes along."""
    given = options.get("purposes")
    event_id = options.get("id")
    return Feedback(
        response_id=response_id_of(answer),
        kind=kind,  # pyright: ignore[reportArgumentType] - checked and converted there
        text=text,
        user=options.get("user"),
        purposes=purposes if given is None else purposes_of(given),
        token=options.get("token") or (token_in(answer) if keyless else None),
        traceparent=options.get("traceparent") or current_traceparent(),
        id=new_event_id() if event_id is None else event_id,
    )
