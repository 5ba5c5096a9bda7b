"""A file on its way to the log: what is counted, what is redacted, when it stops."""

import json
from collections import Counter
from collections.abc import Mapping as AnyMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.lake.events import Origin
from infra.lake.importing import SHOWN_BAD_ROWS, Kind, Tally, check_purposes, run
from infra.lake.mapping import Mapping
from schemas.consent import Purpose
from schemas.envelope import Event
from schemas.errors import SettingsError
from schemas.messages import Payload
from schemas.topics import Topic
from streams.core.conduct import BurstRule

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ORIGIN = Origin("rows", NOW)


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[Topic, Event[Any]]] = []
        self.flushed = 0

    def publish(self, topic: Topic, event: Event[Payload]) -> None:
        self.events.append((topic, event))

    def flush(self) -> None:
        self.flushed = len(self.events)


class Names:
    """A redactor that knows one name, and numbers it within a conversation like the real one."""

    def conversation(self) -> "Names.Talk":
        return Names.Talk()

    class Talk:
        def __init__(self) -> None:
            self.found: Counter[str] = Counter()

        def redact(self, text: str, /) -> str:
            self.found["name"] += text.count("Ann")
            return text.replace("Ann", "[NAME_1]")


def imported(
    tmp_path: Path, rows: list[AnyMapping[str, Any] | str], kind: Kind, **more: Any
) -> tuple[list[tuple[Topic, Event[Any]]], Tally]:
    path, sink = tmp_path / "rows.jsonl", Kept()
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    tally = run(path, kind, Mapping(), ORIGIN, sink=sink, **{"redactor": None} | more)
    assert sink.flushed == len(sink.events)
    return sink.events, tally


def thumb(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"question {number}", "completion": "a", "thumb": "up"} | more


def test_every_row_is_counted_once(tmp_path: Path) -> None:
    rows = [thumb(1), "{broken", thumb(2, thumb="well"), thumb(3, thumb=""), thumb(4, comment="fine")]
    events, tally = imported(tmp_path, rows, Kind.THUMBS)
    assert (tally.rows, tally.bad, tally.silent) == (5, 2, 1)
    assert tally.events == {"outputs": 2, "feedback": 2}
    assert [number for number, _ in tally.bad_rows] == [2, 3]
    assert len(events) == 4
    assert tally.detail() == "5 rows: 2 feedback, 2 outputs; 2 bad, 1 without a word; nothing redacted"


def test_only_the_first_bad_rows_are_kept(tmp_path: Path) -> None:
    _, tally = imported(tmp_path, ["{"] * (SHOWN_BAD_ROWS + 5), Kind.PREFERENCE)
    assert (tally.bad, len(tally.bad_rows)) == (SHOWN_BAD_ROWS + 5, SHOWN_BAD_ROWS)


def test_strict_stops_at_the_first_bad_row_and_keeps_what_came_before(tmp_path: Path) -> None:
    tally = Tally()
    with pytest.raises(SettingsError, match=r"rows.jsonl, row 2: not JSON.*after 2 events"):
        imported(tmp_path, [thumb(1), "{", thumb(3)], Kind.THUMBS, strict=True, tally=tally)
    assert (tally.rows, tally.events["outputs"]) == (2, 1)


def test_no_text_reaches_the_log_with_personal_data(tmp_path: Path) -> None:
    row = thumb(
        1, prompt="I am Ann", completion="Hi Ann, Ann", comment="Ann was here", correction="Dear Ann", user="Ann"
    )
    events, tally = imported(tmp_path, [row], Kind.THUMBS, redactor=Names())
    written = " ".join(event.data.model_dump_json() for _, event in events)
    assert "Ann" not in written
    assert "I am [NAME_1]" in written
    assert tally.redacted == {"name": 5}
    pair = {"prompt": "I am Ann", "chosen": "Ann!", "rejected": "Who?", "user": "Ann"}
    ((_, label),), _ = imported(tmp_path, [pair], Kind.PREFERENCE, redactor=Names())
    assert "Ann" not in label.data.model_dump_json()


def test_a_user_who_is_personal_data_is_still_one_user(tmp_path: Path) -> None:
    rows = [thumb(n, user=user) for n, user in enumerate(("Ann", "Ann", "bob"))]
    events, _ = imported(tmp_path, rows, Kind.THUMBS, redactor=Names())
    users = [event.data.user_id for topic, event in events if topic.payload.schema_name == "outputs"]
    assert users[0] == users[1] != users[2] == "bob"
    assert users[0].startswith("user-")


def test_rows_without_a_time_are_not_taken_for_a_burst_of_clicks(tmp_path: Path) -> None:
    rule = BurstRule()
    events, _ = imported(tmp_path, [thumb(n, user="ann") for n in range(3 * rule.limit)], Kind.THUMBS)
    times = [event.time for topic, event in events if topic.payload.schema_name == "feedback"]
    assert times == sorted(times)
    assert max(times) <= NOW
    busiest = max(sum(begin <= t < begin + rule.window for t in times) for begin in times)
    assert busiest <= rule.limit
    ((_, output), _), _ = imported(tmp_path, [thumb(1, time=NOW.timestamp() - 60, user="ann")], Kind.THUMBS)
    assert output.time == NOW - timedelta(seconds=60)


def test_comparisons_need_consent_to_training() -> None:
    check_purposes(Kind.PREFERENCE, ORIGIN)
    check_purposes(Kind.PREFERENCE, Origin("rows", NOW, (Purpose.TRAINING,)))
    check_purposes(Kind.THUMBS, Origin("rows", NOW, ()))
    with pytest.raises(SettingsError, match="--purposes without training"):
        check_purposes(Kind.LABEL_STUDIO, Origin("rows", NOW, ()))
