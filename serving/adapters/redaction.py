"""Personal data out of texts before they reach the log, by `thumbwheel_redaction`.

    prompt, answer ─► one conversation: the same value gets the same placeholder in all of its texts
    feedback's text ─► a conversation of its own
    user id ─► as it is, or its pseudonym where it is an address itself (`serving.core.pseudonyms`)

What was found is counted by kind, and nowhere else.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from schemas.errors import SettingsError
from schemas.messages import ChatMessage
from serving.core.pseudonyms import protected
from thumbwheel_redaction import Kind, NameFinder, Redactor

T = TypeVar("T")

INLINE_CHARACTERS = 2_048
"""Up to here redaction takes less time than the way to a thread and back."""


class Redaction:
    """What is replaced in events. Safe to use from any thread. `redactor` None: nothing is."""

    def __init__(
        self, redactor: Redactor | None, *, key: bytes, on_found: Callable[[str, int], None], finds_names: bool = False
    ) -> None:
        self._redactor = redactor
        self._finds_names = finds_names
        self._key = key
        self._on_found = on_found

    def takes_long(self, characters: int) -> bool:
        """Whether so much text would hold up other requests: much of it, or any of it where names are looked for."""
        return self._finds_names or characters > INLINE_CHARACTERS

    async def without_blocking(self, characters: int, work: Callable[[], T]) -> T:
        """What `work` returns: done here where that is soon, else on a thread, so that other requests go on."""
        return await asyncio.to_thread(work) if self.takes_long(characters) else work()

    def texts(self, texts: Sequence[str]) -> list[str]:
        """The texts of one conversation with placeholders for what was found in them."""
        if self._redactor is None or (len(texts) == 1 and not self._redactor.find_with_names(texts[0])):
            return list(texts)  # most feedback: no conversation needs to be begun
        talk = self._redactor.conversation()
        redacted = [talk.redact(text) for text in texts]
        for kind, times in talk.found.items():
            self._on_found(str(kind), times)
        return redacted

    def exchange(
        self, prompt: Sequence[ChatMessage], completion: str, segment: str
    ) -> tuple[tuple[ChatMessage, ...], str, str]:
        """A prompt, its answer and the segment as they may be kept."""
        *contents, answer, part = self.texts([*(message.content for message in prompt), completion, segment])
        kept = zip(prompt, contents, strict=True)
        return tuple(old if content is old.content else _with(old, content) for old, content in kept), answer, part

    def user(self, user_id: str | None) -> str | None:
        """The user id as it may be kept and shown in a token; the same for the same user."""
        return user_id if self._redactor is None else protected(user_id, self._key)

    def event_id(self, id: str) -> str:
        """A client's event id as it may be kept; the same for a retry."""
        return id if self._redactor is None else protected(id, self._key, prefix="id") or id


def _with(message: ChatMessage, content: str) -> ChatMessage:
    return ChatMessage(role=message.role, content=content)


def make_redactor(kinds: Collection[str], *, names_model: str) -> Redactor | None:
    """The redactor for these kinds; None for none of them. Raises `SettingsError` where what finds names is missing."""
    if not kinds:
        return None
    names = _name_finder(names_model) if Kind.NAME in kinds else None
    return Redactor([Kind(kind) for kind in kinds], names=names)


def _name_finder(model: str) -> NameFinder:
    # Imported late: it brings a language model along, and most gateways don't want it.
    from thumbwheel_redaction.presidio import PresidioNames

    try:
        return PresidioNames(model, language=model[:2])
    except (ImportError, ValueError) as error:
        raise SettingsError(f"THUMBWHEEL_REDACTION has `name`, which can't be found: {error}") from error
