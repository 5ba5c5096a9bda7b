"""Dead letters on their way again: what is sent, what is held back and why, and the mark that follows.

letters ─► as they came, or after an editor ─► would they fail again? ─► their topic ─► audit event
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import typer

from infra.cli.options import Place

if TYPE_CHECKING:
    from infra.cli.letter_edit import Outgoing
    from infra.cli.letters import Filed
    from infra.local.log import Publisher
    from streams.adapters.dead_letters import Letter

SOURCE = "infra/cli/dlq"
BATCH_LETTERS = 200


def send(
    place: Place, letters: "Iterator[tuple[Filed, Letter]]", *, edit: bool, interactive: Callable[[], bool]
) -> tuple[int, list[tuple[str, str]]]:
    """How many were acknowledged, and why the others were not sent, by letter id.

    `interactive` says whether somebody is there to be asked.

    The mark follows the acknowledgement: after a crash in between the letter is still open, and sent again it has the
    same event id.
    """
    from infra.cli.resend import Resender

    resender, publisher, sent, failed = Resender(place.kafka), audit_publisher(place), 0, list[tuple[str, str]]()
    while batch := list(islice(letters, 1 if edit else BATCH_LETTERS)):
        ready: dict[str, tuple[str, Outgoing]] = {}
        for filed, letter in batch:
            message, why = _edited(letter, interactive) if edit else _as_it_came(letter)
            if message is None:
                failed.append((filed.id, why))
            else:
                ready[filed.id] = (filed.topic, message)
        refused = resender.send(ready)
        failed += refused.items()
        for filed, _ in batch:
            if filed.id in ready and filed.id not in refused:
                record(publisher, "replay", filed, "edited and sent again" if edit else "sent again as it came")
                sent += 1
        publisher.flush()
    return sent, failed


def _as_it_came(letter: "Letter") -> "tuple[Outgoing | None, str]":
    from infra.cli.letter_edit import original, prepared, refusal

    message = prepared(letter, original(letter))
    why = refusal(letter.topic, message)
    return (None, f"it would fail again: {why}; mend it with --edit") if why else (message, "")


def _edited(letter: "Letter", interactive: Callable[[], bool]) -> "tuple[Outgoing | None, str]":
    """The message after the editor, as often as the user wants to mend it; None where they gave up."""
    from infra.cli.editor import edit
    from infra.cli.letter_edit import BadDocument, document, prepared, read_document, refusal
    from infra.cli.terminal import err

    before = text = document(letter)
    while True:
        text = edit(text, name=f"{letter.id}.json")
        try:
            message = prepared(letter, read_document(text, letter))
            why = refusal(letter.topic, message)
        except BadDocument as error:
            message, why = None, str(error)
        if message is not None and why is None:
            return message, ""
        note = "nothing was changed" if text == before else "not sent"
        err().print(f"{letter.id}: {note}; it would fail again: {why}", markup=False)
        if text == before or not interactive() or not typer.confirm("Edit again?", default=True):
            return None, f"{note}; it would fail again: {why}"


def record(publisher: "Publisher", action: str, filed: "Filed", what: str) -> None:
    """Say, as an audit event, what was done about a letter; its latest one is its state."""
    import getpass

    from schemas import topics
    from schemas.audit import Audit
    from schemas.envelope import new_event

    detail = f"{what}: {filed.topic}/{filed.partition} offset {filed.offset}, {filed.reason}"
    fields = {"actor": f"cli:{getpass.getuser()}", "action": action, "target": filed.id, "detail": detail}
    publisher.publish(topics.AUDIT, new_event(Audit.model_validate(fields), source=SOURCE))


def audit_publisher(place: Place) -> "Publisher":
    """For the marks that letters get."""
    from infra.local.log import Publisher

    return Publisher(place.kafka)
