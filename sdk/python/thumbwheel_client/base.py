"""What the two clients have in common: from a call to an event in the outbox, whatever goes wrong."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack

from thumbwheel_client.errors import InvalidEvent, SpoolError
from thumbwheel_client.events import Event, Feedback, Kind, Message, Output, purposes_of
from thumbwheel_client.ids import new_event_id
from thumbwheel_client.openai_wrapper import wrap
from thumbwheel_client.outbox import Outbox, Stats
from thumbwheel_client.receipts import Receipt
from thumbwheel_client.settings import Settings
from thumbwheel_client.spool import Spool
from thumbwheel_client.trace import current_traceparent
from thumbwheel_client.verbs import Options, Verbs, feedback_from

logger = logging.getLogger("thumbwheel_client")

C = TypeVar("C")
Pair: TypeAlias = tuple[Event, Receipt]
Pairs: TypeAlias = Sequence[Pair]
Collect: TypeAlias = Callable[[Kind | str, object, str | None, Options], tuple[Event | None, Receipt]]


class Details(TypedDict, total=False):
    """What may be known of an answer beside its texts. `latency_seconds` runs from the request to the last token;
    answers to one request share its `request_id`, which only Kafka carries."""

    response_id: str
    user: str | None
    purposes: Iterable[str] | None
    metadata: Mapping[str, str] | None
    temperature: float | None
    top_p: float | None
    max_completion_tokens: int | None
    finish_reason: Literal["stop", "length"] | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_seconds: float | None
    request_id: str | None
    traceparent: str | None


class Base(Verbs):
    """Makes events of calls and leaves them in the outbox. Safe to use from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        spool = None
        if settings.spool is not None:
            spool = Spool(settings.spool, max_bytes=settings.spool_bytes, fsync=settings.fsync)
        self._outbox = Outbox(bounds=settings.bounds, spool=spool, backoff=settings.backoff)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.where!r})"

    @property
    def stats(self) -> Stats:
        """What became of the events so far."""
        return self._outbox.snapshot()

    def send(self, *events: Event, strict: bool | None = None) -> list[Receipt]:
        """Send events that were made beforehand, `Feedback` or `Output`, together."""
        is_strict = self._is_strict(strict)
        made = [self._event_or_refusal(partial(_checked, event), is_strict) for event in events]
        pairs = [(event, receipt) for event, receipt in made if event is not None]
        if pairs:
            self._post(pairs, is_strict)
        return [receipt for _, receipt in made]

    def batch(self, *, strict: bool | None = None) -> "Batch":
        """Collect feedback and send it together: `with client.batch() as batch: batch.thumbs_up(...)`."""
        is_strict = self._is_strict(strict)
        return Batch(partial(self._collected, is_strict), lambda pairs: self._post(pairs, is_strict), strict=is_strict)

    def record(
        self,
        messages: Iterable[Mapping[str, str]],
        completion: str,
        *,
        model: str,
        strict: bool | None = None,
        **details: Unpack[Details],
    ) -> Receipt:
        """Record an answer that was given elsewhere; the receipt's `response_id` is what feedback then names."""
        return self._guarded(lambda: _output(messages, completion, model, details, self._settings.purposes), strict)

    def wrap(self, client: C) -> C:
        """Record the answers of an `openai` client, `OpenAI` or `AsyncOpenAI`, in the background; gives it back.

        Answers of a Thumbwheel gateway are recorded there already. Those of others get a response id of ours, which
        `thumbs_up(answer)` and the rest find by themselves. The client's calls behave as before, whatever happens here.
        """
        self._wake()  # a stream may end where no thread can be started any more
        wrap(client, self._recorded_by_wrapper)
        return client

    def _recorded_by_wrapper(self, output: Output, later: bool) -> None:
        """Queue an answer that the wrapper saw; never strict, as the host's call must not fail for it."""
        if output.purposes is None and self._settings.purposes is not None:
            output = replace(output, purposes=self._settings.purposes)
        receipt = self._receipt(output, False)
        if later:
            self._outbox.put_later(output, receipt)
            self._nudge()
        else:
            self._post([(output, receipt)], False)

    def _say(self, kind: Kind | str, answer: object, text: str | None, options: Options) -> Receipt:
        return self._guarded(lambda: self._made(kind, answer, text, options), options.get("strict"))

    def _made(self, kind: Kind | str, answer: object, text: str | None, options: Options) -> Feedback:
        purposes, keyless = self._settings.purposes, self._settings.keyless
        return feedback_from(kind, answer, text, options, purposes=purposes, keyless=keyless)

    def _guarded(self, make: Callable[[], Event], strict: bool | None) -> Receipt:
        """Make the event and post it. Unless strict nothing is raised: mistakes and bugs of ours are logged."""
        is_strict = self._is_strict(strict)
        event, receipt = self._event_or_refusal(make, is_strict)
        if event is not None:
            self._post([(event, receipt)], is_strict)
        return receipt

    def _collected(
        self, strict: bool, kind: Kind | str, answer: object, text: str | None, options: Options
    ) -> tuple[Event | None, Receipt]:
        """An event for a batch, which isn't sent yet."""
        return self._event_or_refusal(lambda: self._made(kind, answer, text, options), strict)

    def _event_or_refusal(self, make: Callable[[], Event], strict: bool) -> tuple[Event | None, Receipt]:
        try:
            event = make()
        except Exception as error:  # the host application must not fail for feedback, whatever it hands us
            if strict:
                raise
            reason = str(error) if isinstance(error, InvalidEvent) else f"{type(error).__name__}: {error}"
            return None, self._refused(reason)
        return event, self._receipt(event, strict)

    def _refused(self, reason: str) -> Receipt:
        return self._outbox.refuse(Receipt(new_event_id(), None, patience=0), reason)

    def _is_strict(self, strict: bool | None) -> bool:
        return self._settings.strict if strict is None else strict

    def _receipt(self, event: Event, strict: bool) -> Receipt:
        patience = None if strict else self._settings.timeout
        return Receipt(event.id, event.response_id, patience=patience, strict=strict)

    def _strict_outbox(self, pairs: Pairs) -> Outbox:
        """A queue of their own for events that are sent at once."""
        outbox = Outbox(bounds=self._settings.bounds, backoff=self._settings.backoff)
        for event, receipt in pairs:
            outbox.put(event, receipt)
        return outbox

    def _enqueue(self, pairs: Pairs) -> None:
        for event, receipt in pairs:
            try:
                self._outbox.put(event, receipt)
            except Exception as error:  # noqa: BLE001 - the host application must not fail for feedback
                self._outbox.refuse(receipt, f"{type(error).__name__}: {error}")

    @abstractmethod
    def _wake(self) -> None:
        """Have the courier at work."""

    @abstractmethod
    def _nudge(self) -> None:
        """Tell the courier that there is something to send, without a lock."""

    @abstractmethod
    def _post(self, pairs: Pairs, strict: bool) -> None:
        """Take the events; if strict, send them at once."""


class Batch(Verbs):
    """Collects what is said and sends it together when the block ends; a block that raises sends nothing.

    For the asynchronous client `async with` is there too: if strict, it raises where `with` can't wait.
    """

    def __init__(self, collect: Collect, post: Callable[[Pairs], None], *, strict: bool) -> None:
        self.receipts: list[Receipt] = []
        self._collect = collect
        self._post = post
        self._strict = strict
        self._pairs: list[Pair] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._send()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._send()
            for receipt in self.receipts if self._strict else ():
                await receipt

    def _say(self, kind: Kind | str, answer: object, text: str | None, options: Options) -> Receipt:
        event, receipt = self._collect(kind, answer, text, options)
        if event is not None:
            self._pairs.append((event, receipt))
        self.receipts.append(receipt)
        return receipt

    def _send(self) -> None:
        pairs, self._pairs = self._pairs, []
        if pairs:
            self._post(pairs)


def reopened(settings: Settings) -> Spool | None:
    """A forked child's own spool; None, and a line in the log, where the folder can't be used any more."""
    if settings.spool is None:
        return None
    try:
        return Spool(settings.spool, max_bytes=settings.spool_bytes, fsync=settings.fsync)
    except SpoolError as error:
        logger.warning("%s; events of this process wait in memory", error)
        return None


def _checked(event: object) -> Event:
    if not isinstance(event, (Feedback, Output)):
        raise InvalidEvent(f"a {type(event).__name__} is no event: make a Feedback or an Output")
    return event


def raise_first(receipts: Iterable[Receipt]) -> None:
    """Raise what went wrong with the first event that was not recorded."""
    for receipt in receipts:
        error = receipt.error()
        if error is not None:
            raise error


def _output(
    messages: Iterable[Mapping[str, str]],
    completion: str,
    model: str,
    details: Details,
    purposes: tuple[str, ...] | None,
) -> Output:
    given = dict(details)
    if given.get("purposes") is None:
        given["purposes"] = purposes
    if given.get("traceparent") is None:
        given["traceparent"] = current_traceparent()
    try:
        turns = tuple(Message(message["role"], message["content"]) for message in messages)  # pyright: ignore[reportArgumentType]
    except (KeyError, TypeError) as error:
        raise InvalidEvent("a message needs a role and a content, both texts") from error
    given["purposes"] = purposes_of(given["purposes"])  # pyright: ignore[reportArgumentType]
    return Output(model=model, messages=turns, completion=completion, **given)  # pyright: ignore[reportArgumentType]
