"""Gold rows as events of `thumbwheel.preferences.v1`: whoever writes a row tells of it first, and all tell it alike.

Refine and a rebuild may both come to the same revision of a row: the event's id is made of its content, so that it
counts once.
"""

from typing import TypedDict

from schemas.envelope import Event, new_event
from schemas.ids import content_id
from schemas.messages import ChatMessage
from schemas.preferences import Preference, PreferenceSource
from schemas.tables import PreferenceRow, RatingRow

SOURCE = "thumbwheel/streams/refine"


def announcement(row: RatingRow | PreferenceRow) -> Event[Preference]:
    """The event that tells of one revision of a gold row."""
    preference = rating_event(row) if isinstance(row, RatingRow) else pair_event(row)
    identity = content_id(f"{preference.preference_id}.{preference.revision}", preference.model_dump_json())
    return new_event(preference, source=SOURCE, id=identity)


def rating_event(row: RatingRow) -> Preference:
    """The payload that tells of a rating."""
    return Preference(
        preference_id=row.rating_id,
        kind="rating",
        completion=row.completion,
        label=row.label,
        response_ids=(row.response_id,),
        versions=(row.version,),
        **_judgement(row),
    )


def pair_event(row: PreferenceRow) -> Preference:
    """The payload that tells of a pair."""
    return Preference(
        preference_id=row.preference_id,
        kind="pair",
        chosen=row.chosen,
        rejected=row.rejected,
        response_ids=tuple(i for i in (row.chosen_response_id, row.rejected_response_id) if i),
        versions=tuple(v for v in (row.chosen_version, row.rejected_version) if v),
        **_judgement(row),
    )


class _Judgement(TypedDict):
    """What ratings and pairs have in common."""

    revision: int
    retracted: bool
    prompt_id: str
    prompt: tuple[ChatMessage, ...]
    weight: float
    source: PreferenceSource
    rater_id: str | None


def _judgement(row: RatingRow | PreferenceRow) -> _Judgement:
    return {
        "revision": row.revision,
        "retracted": row.retracted,
        "prompt_id": row.prompt_id,
        "prompt": row.prompt,
        "weight": row.weight,
        "source": row.source,
        "rater_id": row.rater_id,
    }
