"""Personal data out of a draft, before anything of it reaches the log.

The recognisers are those of the distribution `thumbwheel-redaction`. One draft is one conversation: the same address
in the prompt and in the answer gets the same placeholder.
"""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from infra.lake.drafts import Compared, Draft, Prompt, Rated
from schemas.envelope import Event
from schemas.errors import SettingsError
from schemas.ids import content_id, prompt_id
from schemas.labels import Label


class Conversation(Protocol):
    """Replaces personal data in the texts of one conversation, and counts by kind what it replaced."""

    def redact(self, text: str, /) -> str: ...

    @property
    def found(self) -> Mapping[str, int]: ...


class Redactor(Protocol):
    """Opens conversations."""

    def conversation(self) -> Conversation: ...


def recognisers() -> Redactor:
    """The redactor; raises `SettingsError` where its distribution is not installed."""
    try:
        found = importlib.import_module("thumbwheel_redaction")
    except ModuleNotFoundError as error:
        raise SettingsError(
            "personal data can't be taken out: the package thumbwheel-redaction is not installed"
            " (pip install ./sdk/redaction); --without-redaction imports the texts as they are"
        ) from error
    return found.Redactor()


def redact(draft: Draft, redactor: Redactor) -> tuple[Draft, Mapping[str, int]]:
    """The draft without personal data, and how often each kind was found."""
    talk = redactor.conversation()
    prompt = _prompt(draft.prompt, talk)
    if isinstance(draft, Compared):
        left, right = talk.redact(draft.left), talk.redact(draft.right)
        clean: Draft = replace(draft, prompt=prompt, left=left, right=right, rater=_person(draft.rater, redactor))
    else:
        clean = _rated(draft, prompt, talk, redactor)
    return clean, {str(kind): number for kind, number in talk.found.items() if number}


def redact_label(event: Event[Label], redactor: Redactor) -> Event[Label]:
    """The same for a comparison that is an event already. Its id stays: a repeated import counts once."""
    talk, label = redactor.conversation(), event.data
    prompt = _prompt(label.prompt, talk)
    sides = {
        name: side.model_copy(update={"completion": talk.redact(side.completion)})
        for name, side in (("left", label.left), ("right", label.right))
    }
    if not sum(talk.found.values()):
        return event
    return replace(event, data=label.model_copy(update={"prompt": prompt, "prompt_id": prompt_id(prompt), **sides}))


def _rated(draft: Rated, prompt: Prompt, talk: Conversation, redactor: Redactor) -> Rated:
    return replace(
        draft,
        prompt=prompt,
        completion=_maybe(draft.completion, talk),
        comment=_maybe(draft.comment, talk),
        correction=_maybe(draft.correction, talk),
        user=_person(draft.user, redactor),
    )


def _prompt(prompt: Prompt, talk: Conversation) -> Prompt:
    return tuple(turn.model_copy(update={"content": talk.redact(turn.content)}) for turn in prompt)


def _maybe(text: str | None, talk: Conversation) -> str | None:
    return None if text is None else talk.redact(text)


def _person(name: str | None, redactor: Redactor) -> str | None:
    """A user's id that is itself personal data (an address, a number) becomes a hash: still one person, but unnamed."""
    if name is None or redactor.conversation().redact(name) == name:
        return name
    return content_id("user", name)
