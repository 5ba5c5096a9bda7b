"""Topic `thumbwheel.preferences.v1` and the gold rows: an aggregated preference or rating.

Columns follow TRL / Hugging Face: `prompt, chosen, rejected` for a pair, `prompt, completion, label` for a rating.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.messages import Identifier, Payload, Prompt, Text
from schemas.outputs import ResponseId


class PreferenceSource(StrEnum):
    """Where a preference or rating comes from: its provenance."""

    THUMB = "thumb"
    SAME_PROMPT = "same_prompt"
    REGENERATE = "regenerate"
    SIBLINGS = "siblings"
    CORRECTION = "correction"
    LABEL = "label"


class Preference(Payload):
    """A pair (`chosen`, `rejected`) or a rating (`completion`, `label`), with weight and provenance.

    The same `preference_id` may come again with a higher `revision`: the latest one counts, and one with
    `retracted` counts no more (a thumb was withdrawn or turned).
    """

    schema_name: ClassVar[str] = "preferences"

    preference_id: Identifier
    kind: Literal["pair", "rating"]
    revision: Annotated[int, Field(ge=1)]
    retracted: bool = False
    prompt_id: Identifier
    prompt: Prompt
    chosen: Text | None = None
    rejected: Text | None = None
    completion: Text | None = None
    label: bool | None = None
    weight: Annotated[float, Field(ge=0)]
    source: PreferenceSource
    rater_id: Identifier | None = None
    response_ids: tuple[ResponseId, ...] = ()
    versions: tuple[Identifier, ...] = ()

    @property
    def partition_key(self) -> str:
        return self.prompt_id

    @model_validator(mode="after")
    def _pair_or_rating(self) -> Self:
        pair = (self.chosen is not None, self.rejected is not None)
        rating = (self.completion is not None, self.label is not None)
        if (pair, rating) != (
            ((True, True), (False, False)) if self.kind == "pair" else ((False, False), (True, True))
        ):
            raise ValueError(
                "a pair has chosen and rejected, a rating has completion and label, and neither has the other's"
            )
        return self
