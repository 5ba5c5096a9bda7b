"""The fields of an event or a row as the reference lists them: name, type, whether it must be there, and its meaning.

The meaning is what the docstring of the model says of the field; for what goes without saying there, GLOSSARY.
"""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel

GLOSSARY: dict[str, str] = {
    # what an event or row is about
    "response_id": "The answer.",
    "Feedback.response_id": "The answer that it is about.",
    "prompt_id": "The same for everything that was answered to the same conversation.",
    "prompt": "The conversation up to the answer.",
    "completion": "The answer's text.",
    "version": "The model version.",
    "Cycle.version": "The version that came of the cycle.",
    "Alert.version": "The model version that it is about.",
    "base_model": "The model below the version's adapter.",
    "segment": "The part of the traffic, such as a product or a market.",
    "user_id": "The end user, as the application names them.",
    "tenant": "The customer or team that it belongs to.",
    "purposes": "What the user agreed that it may be used for; null where nothing was said, empty for nothing.",
    "credential": "The id of the API key or of the token's signing key under which it came.",
    # how an answer was made
    "temperature": "The sampling temperature.",
    "top_p": "The share of probability that was sampled from.",
    "max_completion_tokens": "The longest answer asked for.",
    "seed": "The seed of the sampling.",
    "finish_reason": "Whether the answer ended by itself or was cut.",
    "input_tokens": "Tokens of the prompt.",
    "output_tokens": "Tokens of the answer.",
    "regenerates": "The answer that this one was asked for instead of.",
    "role": "Who speaks.",
    "content": "What is said.",
    # what was said of it
    "Feedback.kind": "What the user said or did.",
    "thumb": "1, -1, or null after a withdrawal.",
    "rater_id": "Who judged.",
    "ResponseRow.rater_id": "Who gave the thumb.",
    "rated_at": "When the thumb was given.",
    "comment": "The latest comment.",
    "correction": "The latest correction: what the answer should have been.",
    "corrected_by": "Who corrected it.",
    "corrected_at": "When it was corrected.",
    "correction_event_id": "The feedback event that the correction came by.",
    "edited": "The answer as the user last edited it.",
    "flags": "How often it was flagged.",
    "copies": "How often it was copied.",
    "regenerations": "How often another answer was asked for.",
    "feedback_count": "How many feedback events were counted.",
    "Vote.value": "1 or -1.",
    "at": "When.",
    "discounted": "Why it counts for nothing, where it does.",
    # labels
    "task_id": "The comparison.",
    "left": "One side.",
    "right": "The other side.",
    "LabelTask.reason": "Why it was chosen.",
    "uncertainty": "The spread of the reward model's heads over the two sides.",
    "reward_model": "The reward model's id: its cycle.",
    "labeler_id": "Who labeled.",
    "verdict": "The labeler's answer.",
    "reasons": "Why, in the labeler's words.",
    "seconds_taken": "Seconds from the question to the answer.",
    "guidelines_version": "The guidelines that the labeler followed.",
    "Label.origin": "Whether a person gave it, a simulation, or an import.",
    "queued_at": "When it was queued.",
    # ratings and preferences
    "preference_id": "The pair or rating; it may come again with a higher revision.",
    "rating_id": "The rating.",
    "Preference.kind": "Which of the two it is.",
    "revision": "Counts up; the highest of an id is the one that holds.",
    "retracted": "True where the id holds no longer.",
    "chosen": "The better answer.",
    "rejected": "The worse answer.",
    "label": "Whether the answer is good.",
    "weight": "What it counts for: 1 is one judgement by one trusted person.",
    "source": "Where it comes from.",
    "response_ids": "The answers that it is made of.",
    "versions": "The versions that gave them.",
    "chosen_response_id": "The answer that was chosen, where it was served.",
    "rejected_response_id": "The answer that was rejected, where it was served.",
    "chosen_version": "The version that gave the chosen answer.",
    "rejected_version": "The version that gave the rejected answer.",
    "judged_at": "When it was judged.",
    "evidence": "The events that it rests on.",
    "AnnotatorRow.kind": "Whether they rate as a user or judge as a labeler.",
    "judgements": "How many of theirs were looked at.",
    "overlapping": "How many of these somebody else judged too.",
    "gold_asked": "How many were of a question with a known answer.",
    "gold_right": "How many of these were right.",
    "bursts": "How many were too many in a short time.",
    "duplicates": "How many repeated an earlier one.",
    "estimated_at": "When it was estimated.",
    "scored_at": "When it was scored.",
    # versions and cycles
    "ModelVersion.state": "The new state.",
    "previous_state": "The state before it.",
    "parent": "The version that it was trained from.",
    "adapter_sha256": "The checksum of the adapter's file.",
    "cycle_id": "The update cycle.",
    "gates": "What each gate said.",
    "actor": "Who did it: a program, or a person by the command line.",
    "reason": "Why.",
    "GateResult.name": "The gate.",
    "passed": "Whether it held.",
    "GateResult.value": "What was measured.",
    "low": "The lower end of the 95 % interval.",
    "high": "The upper end of the 95 % interval.",
    "threshold": "What was asked for.",
    "detail": "The same in a sentence.",
    "cases": "How many cases it rests on.",
    "remedy": "What would change it, where it did not hold.",
    "status": "What the event says of the cycle.",
    "stage": "The stage that it is in.",
    "metrics": "The stage's figures by their names.",
    "cost": "What was used so far.",
    "seconds": "Wall seconds.",
    "generated_tokens": "Tokens written by a model.",
    "trained_tokens": "Tokens trained on.",
    "device": "What it ran on.",
    "money": "The same in money, where a price is set.",
    "currency": "The price's currency.",
    "cpu_seconds": "Processor time of the process.",
    "device_peak_bytes": "The most memory that was held on a GPU.",
    "trigger": "What began the cycle.",
    # indicators, alerts, audit
    "window_start": "The window's first moment.",
    "window_end": "The first moment after it.",
    "outputs": "How many answers were given.",
    "thumbs_up": "How many thumbs were up.",
    "thumbs_down": "How many thumbs were down.",
    "latency_seconds_sum": "The sum of the answers' seconds.",
    "fingerprint": "The same while it is the same alert.",
    "Alert.state": "Whether it begins or is over.",
    "Alert.name": "The alert's name.",
    "severity": "How soon somebody has to look.",
    "summary": "What is wrong, in a sentence.",
    "example_response_ids": "Answers that show it.",
    "action": "What was done.",
    "target": "What it was done to.",
    # dead letters and the envelope
    "dead_letter_id": "The same for the same message, however often it is found.",
    "topic": "Where the message was.",
    "DeadLetterRow.reason": "Why it is no event of its topic, in one countable word.",
    "key": "The key as it came.",
    "DeadLetterRow.value": "The value as it came.",
    "headers": "The headers as they came, as JSON.",
    "failed_at": "When it was found to be bad.",
    "event_id": "The event's id, stable under retry.",
    "event_time": "When it happened.",
    "event_source": "The program that made the event.",
    "traceparent": "The W3C trace context of the request.",
    "kafka_partition": "The partition that it was read from.",
    "kafka_offset": "The offset that it was read at.",
    "ingested_at": "When it was written to the table.",
}
"""By a field's name, or by `Model.name` where the same name means something else."""

_NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", bytes: "bytes", type(None): "null"}


class Described(NamedTuple):
    """One line of the reference."""

    name: str
    kind: str
    required: bool
    meaning: str


def described(model: type[BaseModel]) -> Iterator[Described]:
    """Every field of a model, in order."""
    for name, field in model.model_fields.items():
        # Constraints stand in the field's metadata; types that hold models are listed by the models' names.
        yield Described(name, _kind(field.annotation), field.is_required(), meaning(model, name))


def meaning(model: type[BaseModel], name: str) -> str:
    """What the model, or a base of it, says of the field; empty where nobody says anything."""
    for base in model.__mro__:
        if base is BaseModel:
            break
        said = [text for text in _sentences(base.__dict__.get("__doc__") or "") if f"`{name}`" in text]
        if said:
            return " ".join(said)
        if f"{base.__name__}.{name}" in GLOSSARY:
            return GLOSSARY[f"{base.__name__}.{name}"]
    return GLOSSARY.get(name, "")


def _sentences(docstring: str) -> list[str]:
    """The docstring's sentences; a semicolon ends one too, so that a field gets its own words."""
    text = " ".join(inspect.cleandoc(docstring).split())
    parts = re.split(r"(?<=[.;])\s+(?=[`A-Z])", text)
    return [part.rstrip(";.") + "." for part in parts if part]


def inner_models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that a model's fields hold, each once."""
    found: dict[type[BaseModel], None] = {}
    for field in model.model_fields.values():
        for kind in _leaves(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= dict.fromkeys([kind, *inner_models(kind)])
    return list(found)


def _leaves(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is typing.Literal:
        return " ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"map of text to {_kind(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " ".join(f"`{value}`" for value in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    return _NAMES.get(annotation, "time")
