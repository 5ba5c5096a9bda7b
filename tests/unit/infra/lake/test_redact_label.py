"""Comparisons that are replayed lose personal data before they reach the log."""

import json
from datetime import UTC, datetime

from infra.lake.redacting import recognisers, redact_label
from infra.local.comparisons import label_event
from schemas.ids import prompt_id

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def event_of(prompt: str, chosen: str, rejected: str):
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return label_event(json.dumps(row).encode(), labeler="replay:x", time=NOW)


def test_an_address_in_prompt_and_answer_becomes_one_placeholder_and_the_event_keeps_its_id() -> None:
    event = event_of("I am ann@example.org", "Hello ann@example.org", "Who?")
    clean = redact_label(event, recognisers())
    texts = {clean.data.left.completion, clean.data.right.completion}
    assert clean.data.prompt[-1].content == "I am [EMAIL_1]" and texts == {"Hello [EMAIL_1]", "Who?"}
    assert clean.id == event.id and clean.data.prompt_id == prompt_id(clean.data.prompt) != event.data.prompt_id


def test_a_comparison_without_personal_data_is_the_very_same() -> None:
    event = event_of("What is tea?", "A drink.", "No idea.")
    assert redact_label(event, recognisers()) is event
