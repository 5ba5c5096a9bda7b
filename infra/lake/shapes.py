"""Rows of the lake in the shapes that trainers read: TRL's and Hugging Face's data set types. Pure.

    preferences   {prompt, chosen, rejected}         DPO, reward modelling
    unpaired      {prompt, completion, label}        KTO
    prompts       {prompt}                           online methods (GRPO, RLOO, PPO)

`messages` is their conversational form: a prompt is a list of {role, content}, an answer a list of one assistant's
turn. `text` is their standard form: strings. A prompt of one user's turn is that turn's text; a longer one is written
as `role: content` blocks, which a trainer's chat template can't take apart again, so `messages` is the default.
https://huggingface.co/docs/trl/dataset_formats
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from schemas import tables
from schemas.tables import Table

_MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))
_TIME = pa.timestamp("us", tz="UTC")


class Style(StrEnum):
    """How prompts and answers are written."""

    MESSAGES = "messages"
    TEXT = "text"


@dataclass(frozen=True)
class Shape:
    """One data set type. `texts` are written by style, `flags` as they are, `provenance` on request."""

    name: str
    table: Table
    texts: tuple[str, ...]
    flags: tuple[str, ...] = ()
    provenance: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read of the table."""
        return (*self.texts, *self.flags, *self.provenance)


_JUDGED = ("weight", "source", "rater_id", "judged_at", "prompt_id")
PREFERENCES = Shape(
    "preferences",
    tables.PREFERENCES,
    ("prompt", "chosen", "rejected"),
    provenance=(
        "preference_id", *_JUDGED, "chosen_response_id", "rejected_response_id", "chosen_version", "rejected_version",
    ),
)  # fmt: skip
UNPAIRED = Shape(
    "unpaired",
    tables.RATINGS,
    ("prompt", "completion"),
    ("label",),
    provenance=("rating_id", *_JUDGED, "response_id", "version"),
)
PROMPTS = Shape("prompts", tables.RESPONSES, ("prompt",), provenance=("prompt_id",))
SHAPES = {shape.name: shape for shape in (PREFERENCES, UNPAIRED, PROMPTS)}


def record(shape: Shape, row: Mapping[str, Any], *, style: Style, provenance: bool) -> dict[str, Any]:
    """One row of the data set."""
    written = {name: _text(name, row[name], style) for name in shape.texts}
    written |= {name: row[name] for name in shape.flags}
    return written | ({name: row[name] for name in shape.provenance} if provenance else {})


def arrow_schema(shape: Shape, *, style: Style, provenance: bool) -> pa.Schema:
    """The columns of the data set as Arrow types."""
    text = _MESSAGES if style is Style.MESSAGES else pa.string()
    fields = [pa.field(name, text) for name in shape.texts] + [pa.field(name, pa.bool_()) for name in shape.flags]
    return pa.schema(fields + [_provenance(name) for name in shape.provenance if provenance])


def prompt_text(turns: Sequence[Mapping[str, str]]) -> str:
    """A prompt as one string."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _text(name: str, value: Any, style: Style) -> Any:
    if name == "prompt":
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in value]
        return turns if style is Style.MESSAGES else prompt_text(turns)
    return [{"role": "assistant", "content": value}] if style is Style.MESSAGES else value


def _provenance(name: str) -> pa.Field:
    kinds = {"weight": pa.float64(), "judged_at": _TIME}
    return pa.field(name, kinds.get(name, pa.string()))
