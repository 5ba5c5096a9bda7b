"""Silver and gold: thumbs, late outputs, withdrawals, labels and scores on real tables and a real broker."""

import random
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas import tables, topics
from schemas.envelope import Event, decode
from schemas.ids import new_response_id
from schemas.labels import Candidate, Label, LabelTask, Verdict
from schemas.outputs import Output
from schemas.preferences import Preference
from schemas.tables import ScoreRow, Table
from streams.adapters.dead_letters import source
from streams.adapters.lake import LakeTable, Move
from streams.refine import Refine
from tests.integration.streams_kit import Kit, content, event, feedback, output, stop, until

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FAR = datetime(2100, 1, 1, tzinfo=UTC)


class Bronze:
    """Puts events straight into the bronze tables, as ingest does."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._ends: dict[str, int] = {}

    def put(self, *events: Event[Any], at: datetime | None = None, by: datetime = FAR) -> None:
        """They are taken in at `at`; without it each one as it happens, but by `by` at the latest."""
        for table in (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS):
            assert table.topic is not None
            ours = [e for e in events if isinstance(e.data, table.topic.payload)]
            start = self._ends.get(table.name, 0)
            rows = [
                tables.event_row(e, partition=0, offset=start + i, ingested_at=at or min(e.time, by))
                for i, e in enumerate(ours)
            ]
            self._ends[table.name] = start + len(rows)
            if rows:
                open_one = self._kit.table(table)
                move = Move(start or None, start + len(rows))
                open_one.append(open_one.arrow(rows), {source(table.topic.name, 0): move})


@pytest.fixture
def kit(broker: str, tmp_path: Path) -> Kit:
    return Kit(broker, tmp_path / "data")


def rounds(refine: Refine) -> None:
    while refine.round():
        pass


def published(kit: Kit, prompt_id: str) -> list[Preference]:
    """The preferences of one prompt in the log. The broker is shared: other tests' are left aside."""
    messages = kit.read(topics.PREFERENCES.name)
    events = {e.id: e for e in (decode(Preference, m.value(), m.headers() or []) for m in messages)}
    return [e.data for e in events.values() if e.data.prompt_id == prompt_id]


def asked(tmp_path: Path, n: int = 2, **more: Any) -> list[Output]:
    """Answers to one question that no other test asks."""
    return [output(f"{tmp_path.name}?", f"answer {i}", **more) for i in range(n)]


def test_thumbs_become_ratings_and_a_pair_and_are_published(kit: Kit, tmp_path: Path) -> None:
    up, down = asked(tmp_path)
    Bronze(kit).put(
        event(up),
        event(down),
        event(feedback(up.response_id, "thumbs_up")),
        event(feedback(down.response_id, "thumbs_down")),
    )
    rounds(kit.refine())
    ratings = {r["completion"]: r["label"] for r in kit.latest(tables.RATINGS).to_dicts()}
    (pair,) = kit.latest(tables.PREFERENCES).to_dicts()
    assert ratings == {"answer 0": True, "answer 1": False}
    assert (pair["chosen"], pair["rejected"], pair["source"]) == ("answer 0", "answer 1", "same_prompt")
    kinds = sorted((p.kind, p.revision, p.retracted) for p in published(kit, up.prompt_id))
    assert kinds == [("pair", 1, False), ("rating", 1, False), ("rating", 1, False)]


def test_a_withdrawal_after_the_rating_retracts_it_and_its_pair(kit: Kit, tmp_path: Path) -> None:
    up, down = asked(tmp_path)
    bronze, refine = Bronze(kit), kit.refine()
    bronze.put(event(up), event(down), event(feedback(up.response_id, "thumbs_up")))
    bronze.put(event(feedback(down.response_id, "thumbs_down")))
    rounds(refine)
    assert (kit.latest(tables.RATINGS).height, kit.latest(tables.PREFERENCES).height) == (2, 1)
    bronze.put(event(feedback(up.response_id, "withdrawal")))
    rounds(refine)
    assert (kit.latest(tables.RATINGS).height, kit.latest(tables.PREFERENCES).height) == (1, 0)
    gone = [p for p in published(kit, up.prompt_id) if p.retracted]
    assert sorted((p.kind, p.revision) for p in gone) == [("pair", 2), ("rating", 2)]


def test_feedback_that_comes_days_before_its_output_is_joined_when_it_comes(kit: Kit, tmp_path: Path) -> None:
    (late,) = asked(tmp_path, 1)
    bronze, refine = Bronze(kit), kit.refine()
    bronze.put(event(feedback(late.response_id, "thumbs_down"), time=NOON - timedelta(days=3)))
    rounds(refine)
    assert kit.latest(tables.RATINGS).height == 0
    bronze.put(event(late))
    rounds(refine)
    (row,) = kit.latest(tables.RESPONSES).to_dicts()
    assert (row["thumb"], row["feedback_count"]) == (-1, 1)
    assert kit.latest(tables.RATINGS)["label"].to_list() == [False]


def test_an_orphan_is_reported_once_and_still_joins_later(kit: Kit, tmp_path: Path) -> None:
    (late,) = asked(tmp_path, 1)
    bronze = Bronze(kit)
    bronze.put(event(feedback(late.response_id, "thumbs_up")), at=datetime.now(UTC) - timedelta(seconds=700))
    young = event(feedback(new_response_id(), "thumbs_up"))
    bronze.put(young, at=datetime.now(UTC))
    first = kit.refine()
    rounds(first)
    assert first.orphans.count == 2
    again = kit.refine()
    rounds(again)
    rounds(again)
    letters = kit.rows(tables.DEAD_LETTERS)
    assert letters["reason"].to_list() == ["unknown_response"]
    assert late.response_id in letters["detail"][0]
    bronze.put(event(late))
    rounds(again)
    assert kit.latest(tables.RATINGS).height == 1
    assert again.orphans.count == 1


def test_labels_become_pairs_and_a_second_opinion_can_undo_them(kit: Kit, tmp_path: Path) -> None:
    bronze, refine = Bronze(kit), kit.refine()
    (shown,) = asked(tmp_path, 1)

    def label(verdict: Verdict, labeler: str) -> Event[Any]:
        return event(
            Label(
                task_id="task-1",
                labeler_id=labeler,
                verdict=verdict,
                prompt_id=shown.prompt_id,
                prompt=shown.prompt,
                left=Candidate(completion="polite"),
                right=Candidate(completion="rude"),
                seconds_taken=4,
            )
        )

    bronze.put(label(Verdict.LEFT, "lea"))
    rounds(refine)
    (pair,) = kit.latest(tables.PREFERENCES).to_dicts()
    assert (pair["chosen"], pair["rejected"], pair["source"], pair["weight"]) == ("polite", "rude", "label", 1.0)
    bronze.put(label(Verdict.RIGHT, "max"))
    rounds(refine)
    assert kit.latest(tables.PREFERENCES).height == 0


def test_new_scores_fill_the_label_queue_once(kit: Kit, tmp_path: Path) -> None:
    answers = asked(tmp_path, 6, purposes=("training", "labeling"))
    Bronze(kit).put(*map(event, answers))
    refine = kit.refine()
    rounds(refine)
    assert kit.rows(tables.LABEL_QUEUE).height == 0
    score(kit, answers)
    rounds(refine)
    rounds(kit.refine())
    queued = kit.rows(tables.LABEL_QUEUE)
    assert (queued.height, queued["task_id"].n_unique()) == (12, 12)
    assert sorted(queued["reason"].to_list()) == ["random"] * 3 + ["uncertain"] * 9
    assert {tuple(purposes) for purposes in queued["purposes"].to_list()} == {("training", "labeling")}
    sent = [decode(LabelTask, m.value(), m.headers() or []).data for m in kit.read(topics.LABEL_TASKS.name)]
    assert {t.task_id for t in sent if t.prompt_id == answers[0].prompt_id} == set(queued["task_id"].to_list())


def score(kit: Kit, answers: Sequence[Output]) -> None:
    rows = [
        ScoreRow(
            response_id=a.response_id,
            prompt_id=a.prompt_id,
            version="base",
            reward_model="v1",
            head_scores=(float(i), float(-i)),
            scored_at=NOON,
        ).model_dump()
        for i, a in enumerate(answers)
    ]
    scores = kit.table(tables.SCORES)
    scores.append(scores.arrow(rows), {})


def _history(tmp_path: Path, seed: int) -> list[Event[Any]]:
    """Some hours of traffic: regenerations, changed minds, corrections, repeats, orphans; in no order."""
    rng = random.Random(seed)
    answers = [output(f"{tmp_path.name} {rng.randrange(6)}?", f"answer {i % 17}") for i in range(40)]
    answers += [
        output(a.prompt[0].content, f"second {i}", regenerates=a.response_id) for i, a in enumerate(answers[:10])
    ]
    known = [event(a, time=NOON + timedelta(minutes=i)) for i, a in enumerate(answers)]
    kinds = ("thumbs_up", "thumbs_down", "thumbs_up", "thumbs_down", "withdrawal", "correction", "copy", "flag")
    for n in range(160):
        kind = rng.choice(kinds)
        about = rng.choice(answers).response_id if n % 20 else new_response_id()
        text = f"better {n}" if kind == "correction" else None
        said = feedback(about, kind, f"user-{rng.randrange(5)}", text)
        known.append(event(said, time=NOON - timedelta(minutes=rng.randrange(600))))
    known += rng.sample(known, 10)
    rng.shuffle(known)
    return known


DERIVED = (tables.RESPONSES, tables.RATINGS, tables.PREFERENCES)


def _derived(kit: Kit) -> dict[str, list[dict[str, Any]]]:
    return {table.name: content(kit.latest(table)) for table in DERIVED}


@pytest.mark.parametrize("seed", [0, 1])
def test_increments_come_to_the_same_rows_as_a_rebuild_at_once(broker: str, tmp_path: Path, seed: int) -> None:
    history = _history(tmp_path, seed)
    whole, parts = Kit(broker, tmp_path / "whole"), Kit(broker, tmp_path / "parts")
    Bronze(whole).put(*history)
    rounds(whole.refine())
    bronze, refine = Bronze(parts), parts.refine(refine_rows=12)
    for start in range(0, len(history), 30):
        bronze.put(*history[start : start + 30])
        rounds(refine)
    assert _derived(parts) == _derived(whole)
    assert len(_derived(whole)["preferences"]) > 10


def test_offsets_that_hold_no_event_are_passed_over(kit: Kit, tmp_path: Path) -> None:
    """A log that no longer held its beginning, and a dead letter behind the last event."""
    (one,) = asked(tmp_path, 1)
    outputs = kit.table(tables.OUTPUTS)
    row = tables.event_row(event(one), partition=0, offset=50_000, ingested_at=NOON)
    outputs.append(outputs.arrow([row]), {source(topics.OUTPUTS.name, 0): Move(None, 50_002)})
    rounds(kit.refine(refine_rows=10))
    assert kit.latest(tables.RESPONSES).height == 1
    assert kit.table(tables.RESPONSES).position(f"refine/{topics.OUTPUTS.name}/0") == 50_002


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def _dies_at(refine: Refine, nth: int, *, committed: bool) -> Callable[[], int]:
    """Let the program die at its nth commit, right before or right after it."""
    count = 0

    def dying(table: LakeTable) -> None:
        append = table.append

        def counted(rows: Any, moves: Mapping[str, Move]) -> None:
            nonlocal count
            count += 1
            if count == nth and not committed:
                raise Killed
            append(rows, moves)
            if count == nth:
                raise Killed

        table.append = counted  # type: ignore[method-assign]

    for table in (refine.responses, refine.ratings, refine.preferences):
        dying(table)
    return lambda: count


@pytest.mark.parametrize("committed", [False, True])
def test_dying_at_any_commit_changes_nothing_in_the_end(broker: str, tmp_path: Path, committed: bool) -> None:
    history = _history(tmp_path, seed=3)
    whole, kit = Kit(broker, tmp_path / "whole"), Kit(broker, tmp_path / "killed")
    Bronze(whole).put(*history)
    rounds(whole.refine())
    bronze = Bronze(kit)
    for nth, start in enumerate(range(0, len(history), 40)):
        bronze.put(*history[start : start + 40])
        refine = kit.refine()
        _dies_at(refine, nth % 3 + 1, committed=committed)
        with pytest.raises(Killed):
            rounds(refine)
    rounds(kit.refine())
    assert _derived(kit) == _derived(whole)
    for table in DERIVED:
        assert _repeated_revisions(kit, table) == 0


def _repeated_revisions(kit: Kit, table: Table) -> int:
    rows = kit.rows(table).select(table.key, "revision")
    return rows.height - rows.unique().height


def test_a_second_refine_is_refused_and_goes_on_from_the_tables(kit: Kit, tmp_path: Path) -> None:
    up, down = asked(tmp_path)
    bronze = Bronze(kit)
    one, two = kit.refine(), kit.refine()
    bronze.put(event(up), event(feedback(up.response_id, "thumbs_up")))
    rounds(one)
    bronze.put(event(down), event(feedback(down.response_id, "thumbs_down")))
    rounds(two)
    rounds(one)
    assert _repeated_revisions(kit, tables.RESPONSES) == 0
    assert (kit.latest(tables.RATINGS).height, kit.latest(tables.PREFERENCES).height) == (2, 1)


def test_ingest_and_refine_killed_in_mid_stream_come_to_the_right_rows(fresh_broker: str, tmp_path: Path) -> None:
    kit, whole = Kit(fresh_broker, tmp_path / "data"), Kit(fresh_broker, tmp_path / "whole")
    history = _history(tmp_path, seed=5)
    for start in range(0, len(history), 80):
        height = kit.rows(tables.RESPONSES).height
        programs = [kit.start("ingest"), kit.start("refine")]
        try:
            kit.send(*history[start : start + 80])
            until(lambda h=height: kit.rows(tables.RESPONSES).height > h, "new responses before a kill")
        finally:
            for program in programs:
                program.send_signal(signal.SIGKILL)
                program.wait()
    Bronze(whole).put(*history)
    rounds(whole.refine())
    programs = [kit.start("ingest"), kit.start("refine")]
    try:
        until(lambda: _derived(kit) == _derived(whole), "the same rows as a rebuild")
    finally:
        ended = [stop(program) for program in programs]
    assert ended == [0, 0]
    for table in DERIVED:
        assert _repeated_revisions(kit, table) == 0
