"""Rows of the formats that can be imported, as drafts. Pure; raises `BadRow` for a row that is none.

preference   {prompt, chosen, rejected}                          one comparison
unpaired     {prompt, completion, label}                         one rated answer
prompts      {prompt}                                            one prompt
thumbs       whatever the mapping says                           one rated answer
"""

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from infra.lake.drafts import Compared, Draft, Prompt, Rated
from infra.lake.mapping import Mapping
from infra.local.comparisons import BadRow, bad_row, read_prompt, read_text
from schemas.labels import Verdict

Row = AnyMapping[str, Any]


def preference(row: Row, mapping: Mapping, *, now: datetime) -> list[Draft]:
    """TRL's preference type, with an explicit prompt or (conversational) one that both sides begin with."""
    chosen, rejected = mapping.get(row, "chosen"), mapping.get(row, "rejected")
    prompt = mapping.get(row, "prompt")
    if prompt is None and isinstance(chosen, list) and isinstance(rejected, list):
        prompt, chosen, rejected = _implicit(chosen, rejected)
    texts = {"chosen": chosen, "rejected": rejected}
    return [
        Compared(
            prompt=_prompt(prompt),
            left=read_text(texts, "chosen"),
            right=read_text(texts, "rejected"),
            verdict=Verdict.LEFT,
            rater=_name(mapping.words(row, "user", "labeler_id", "rater_id")),
            time=mapping.moment(mapping.get(row, "time", "judged_at"), now=now),
        )
    ]


def rated(row: Row, mapping: Mapping, *, now: datetime) -> list[Draft]:
    """TRL's unpaired type, and any log of thumbs. Nothing for a row in which nothing is said of the answer."""
    draft = Rated(
        prompt=_prompt(mapping.get(row, "prompt")),
        completion=read_text({"completion": mapping.get(row, "completion")}, "completion"),
        thumb=mapping.thumb_of(mapping.get(row, "thumb", "label")),
        comment=mapping.words(row, "comment"),
        correction=mapping.words(row, "correction"),
        **_common(row, mapping, now),
    )
    silent = draft.thumb is None and draft.comment is None and draft.correction is None
    return [] if silent else [draft]


def prompts(row: Row, mapping: Mapping, *, now: datetime) -> list[Draft]:
    """TRL's prompt-only type."""
    return [Rated(prompt=_prompt(mapping.get(row, "prompt")), **_common(row, mapping, now))]


def _common(row: Row, mapping: Mapping, now: datetime) -> dict[str, Any]:
    return {
        "user": _name(mapping.words(row, "user", "rater_id", "user_id")),
        "time": mapping.moment(mapping.get(row, "time", "judged_at"), now=now),
        "model": _name(mapping.words(row, "model", "version")),
        "id": _name(mapping.words(row, "id", "response_id")),
    }


def _prompt(value: Any) -> Prompt:
    if isinstance(value, list):
        value = [_turn(turn) for turn in value]
    try:
        found = read_prompt(value)
    except ValidationError as error:
        raise bad_row(error) from error
    if not any(turn.content.strip() for turn in found):
        raise BadRow("prompt is empty")
    return found


def _turn(turn: Any) -> Any:
    """Role and content of a turn; chat logs note more beside them."""
    if isinstance(turn, AnyMapping):
        return {name: turn[name] for name in ("role", "content") if name in turn}
    return turn


def _implicit(chosen: Sequence[Any], rejected: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Where both sides hold the whole conversation: what they share is the prompt."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return list(chosen[:shared]), list(chosen[shared:]), list(rejected[shared:])


def _name(value: str | None) -> str | None:
    if value is not None and len(value) > 200:
        raise BadRow("a name or id is longer than 200 characters")
    return value
