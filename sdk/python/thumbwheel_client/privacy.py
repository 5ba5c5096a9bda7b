"""Personal data out of an event before it leaves the process. The recognisers are `thumbwheel_redaction`'s; this module
knows only their shape, so that the package is not needed where nothing is redacted here."""

from dataclasses import replace
from typing import Protocol

from thumbwheel_client.events import Event, Feedback, Message


class Talk(Protocol):
    """One conversation: the same value gets the same placeholder."""

    def redact(self, text: str, /) -> str: ...


class Redacting(Protocol):
    """`thumbwheel_redaction.Redactor`, or anything like it."""

    def conversation(self) -> Talk: ...


def redacted(event: Event, redactor: Redacting | None) -> Event:
    """The event with the personal data in its texts replaced by placeholders; as it is without a redactor."""
    if redactor is None:
        return event
    talk = redactor.conversation()
    if isinstance(event, Feedback):
        return event if event.text is None else replace(event, text=talk.redact(event.text))
    messages = tuple(Message(m.role, talk.redact(m.content)) for m in event.messages)
    completion = talk.redact(event.completion)
    metadata = {name: talk.redact(value) for name, value in (event.metadata or {}).items()}
    return replace(event, messages=messages, completion=completion, metadata=metadata or None)
