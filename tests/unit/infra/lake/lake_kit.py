"""Real Delta tables on disk, with rows of few words."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.lake.catalog import Catalog
from schemas import tables
from schemas.ids import content_id, prompt_id
from schemas.messages import ChatMessage
from schemas.storage import LakeRoot
from schemas.tables import Table
from streams.adapters.lake import LakeTable, Move, open_table

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def catalog(root: Path) -> Catalog:
    return Catalog(LakeRoot.of(root))


def put(root: Path, table: Table, rows: Iterable[Mapping[str, Any]], moves: Mapping[str, Move] | None = None) -> None:
    """Append rows in one commit; columns that are left out are null."""
    opened = open_table(root, table)
    filled = [dict.fromkeys(table.columns()) | dict(row) for row in rows]
    opened.append(opened.arrow(filled), moves or {})


def compact(root: Path, table: Table) -> None:
    handle(root, table).optimize.compact()


def handle(root: Path, table: Table) -> Any:
    return LakeTable(root, table)._handle  # pyright: ignore[reportPrivateUsage]


def response_id(number: int) -> str:
    return f"chatcmpl-{number:032x}"


def prompt(text: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role="user", content=text),)


def rating(number: int, **more: Any) -> dict[str, Any]:
    """A gold rating of answer `number`: thumb up by user `ann`, of weight 1."""
    asked = prompt(more.pop("asked", f"question {number}"))
    return {
        "rating_id": f"rating-{response_id(number)}",
        "revision": 1,
        "retracted": False,
        "prompt_id": prompt_id(asked),
        "prompt": [turn.model_dump() for turn in asked],
        "completion": f"answer {number}",
        "label": True,
        "weight": 1.0,
        "source": "thumb",
        "rater_id": "ann",
        "judged_at": NOON + timedelta(seconds=number),
        "response_id": response_id(number),
        "version": "base",
    } | more


def preference(number: int, **more: Any) -> dict[str, Any]:
    """A gold pair of the answers `2 * number` (chosen) and `2 * number + 1`."""
    asked = prompt(more.pop("asked", f"question {number}"))
    return {
        "preference_id": content_id("pair", str(number)),
        "revision": 1,
        "retracted": False,
        "prompt_id": prompt_id(asked),
        "prompt": [turn.model_dump() for turn in asked],
        "chosen": f"good {number}",
        "rejected": f"bad {number}",
        "weight": 1.0,
        "source": "regenerate",
        "rater_id": "ann",
        "judged_at": NOON + timedelta(seconds=number),
        "chosen_response_id": response_id(2 * number),
        "rejected_response_id": response_id(2 * number + 1),
    } | more


def response(number: int, **more: Any) -> dict[str, Any]:
    """A silver row of answer `number`."""
    asked = prompt(more.pop("asked", f"question {number}"))
    return {
        "response_id": response_id(number),
        "prompt_id": prompt_id(asked),
        "prompt": [turn.model_dump() for turn in asked],
        "completion": f"answer {number}",
        "version": "base",
        "base_model": "tiny",
        "temperature": 0.8,
        "top_p": 1.0,
        "max_completion_tokens": 20,
        "routing_probability": 1.0,
        "finish_reason": "stop",
        "input_tokens": 4,
        "output_tokens": 6,
        "latency_seconds": 0.1,
        "segment": "default",
        "event_time": NOON + timedelta(seconds=number),
        "revision": 1,
        "retracted": False,
        "flags": 0,
        "copies": 0,
        "regenerations": 0,
        "feedback_count": 0,
    } | more


def audit(number: int, **more: Any) -> dict[str, Any]:
    """A row of a table without revisions."""
    return {
        "event_id": f"event-{number:04d}",
        "event_time": NOON + timedelta(seconds=number),
        "event_source": "test",
        "kafka_partition": 0,
        "kafka_offset": number,
        "ingested_at": NOON,
        "actor": "cli:ann",
        "action": "export",
        "target": f"target {number}",
        "detail": "",
    } | more


RATINGS, PREFERENCES, RESPONSES, AUDIT = tables.RATINGS, tables.PREFERENCES, tables.RESPONSES, tables.AUDIT
