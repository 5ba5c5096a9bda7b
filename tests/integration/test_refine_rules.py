"""The rules of aggregation on real tables: tenants, consent, bursts, repeats, raters; whatever the order of arrival."""

import itertools
import json
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas import tables, topics
from schemas.envelope import Event
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id
from schemas.labels import Candidate, Label, Verdict
from schemas.outputs import Output
from streams.orphans import unmet
from streams.rebuild import Rebuild
from streams.refine import Refine
from streams.settings import RaterSettings, SelectionSettings
from tests.integration.streams_kit import Kit, content, event, output
from tests.integration.test_refine import NOON, Bronze, asked, rounds, score

STRICT = RaterSettings(burst_limit=3, estimate_seconds=0, cap=5)
EVENING = NOON + timedelta(hours=2)
DERIVED = (tables.RESPONSES, tables.RATINGS, tables.PREFERENCES, tables.ANNOTATORS)


@pytest.fixture
def kit(broker: str, tmp_path: Path) -> Kit:
    return Kit(broker, tmp_path / "data")


def said(about: Output, kind: str, user: str | None = "ann", second: float = 0.0, **more: Any) -> Event[Any]:
    """Feedback at a second after noon."""
    event_id = more.pop("id", None)
    given = Feedback(response_id=about.response_id, kind=FeedbackKind(kind), user_id=user, **more)
    time = NOON + timedelta(seconds=second)
    return event(given, time=time, id=event_id) if event_id else event(given, time=time)


def label(
    about: Output, labeler: str, verdict: Verdict, *, task: str = "task-1", minute: float = 0.0, **more: Any
) -> Event[Any]:
    given = Label(
        task_id=task,
        labeler_id=labeler,
        verdict=verdict,
        prompt_id=about.prompt_id,
        prompt=about.prompt,
        left=Candidate(completion=about.completion, response_id=about.response_id),
        right=Candidate(completion="the other text"),
        seconds_taken=4,
        **more,
    )
    return event(given, time=NOON + timedelta(minutes=minute))


def strict(kit: Kit, **more: Any) -> Refine:
    return kit.refine(raters=STRICT.model_copy(update=more))


def strangers(kit: Kit) -> int:
    return kit.rows(tables.DEAD_LETTERS)["reason"].to_list().count("wrong_tenant")


def weights(kit: Kit) -> dict[str, tuple[float, str | None]]:
    rows = kit.latest(tables.RATINGS).iter_rows(named=True)
    return {row["response_id"]: (row["weight"], row["discounted"]) for row in rows}


def test_feedback_of_another_tenant_is_reported_once_and_never_counted(kit: Kit, tmp_path: Path) -> None:
    ours, other = asked(tmp_path, tenant="acme")
    bronze, refine = Bronze(kit), strict(kit)
    bronze.put(
        event(ours),
        said(ours, "thumbs_up", tenant="acme"),
        said(ours, "thumbs_down", "eve", 9, tenant="evil"),
        said(other, "thumbs_down", "eve", 9),  # its output is still to come
    )
    rounds(refine)
    assert strangers(kit) == 1
    bronze.put(event(other), said(ours, "copy", tenant="acme", second=60))
    rounds(refine)
    rounds(strict(kit))
    assert strangers(kit) == 2
    rows = {r["completion"]: r for r in kit.latest(tables.RESPONSES).to_dicts()}
    assert [(r["thumb"], r["feedback_count"]) for r in (rows["answer 0"], rows["answer 1"])] == [(1, 2), (None, 0)]
    assert kit.latest(tables.RATINGS)["tenant"].to_list() == ["acme"]


def test_what_may_not_be_learned_from_is_kept_and_teaches_nothing(kit: Kit, tmp_path: Path) -> None:
    refused, agreed = asked(tmp_path, purposes=("labeling",))[0], asked(tmp_path)[1]
    Bronze(kit).put(
        event(refused),
        event(agreed),
        said(refused, "thumbs_down"),
        said(agreed, "thumbs_up", second=5),
        said(agreed, "correction", "bob", text="better", purposes=()),
    )
    rounds(strict(kit))
    assert kit.rows(tables.FEEDBACK).height == 3
    assert kit.latest(tables.RATINGS)["completion"].to_list() == ["answer 1"]
    assert kit.latest(tables.PREFERENCES).height == 0


def test_a_late_event_can_push_a_judgement_over_the_limit_of_a_burst(kit: Kit, tmp_path: Path) -> None:
    answers = asked(tmp_path, 4)
    bronze, refine = Bronze(kit), strict(kit)
    bronze.put(*map(event, answers), *(said(a, "thumbs_up", second=n) for n, a in enumerate(answers) if n))
    rounds(refine)
    assert set(weights(kit).values()) == {(1.0, None)}
    bronze.put(said(answers[0], "thumbs_up"))
    rounds(refine)
    found = weights(kit)
    assert [found[a.response_id] for a in answers] == [(1.0, None)] * 3 + [(0.0, "burst")]
    rounds(strict(kit))  # the first one's next estimate waits its turn
    (row,) = kit.latest(tables.ANNOTATORS).to_dicts()
    assert (row["rater_id"], row["judgements"], row["bursts"], row["weight"]) == ("ann", 4, 1, 1.0)


def test_a_clock_that_is_ahead_does_not_have_the_last_word(kit: Kit, tmp_path: Path) -> None:
    """A thumb that says it is of tomorrow is of when it came; bronze keeps what it says."""
    (answer,) = asked(tmp_path, 1)
    bronze = Bronze(kit)
    bronze.put(event(answer, time=NOON))
    bronze.put(said(answer, "thumbs_up", second=86_400), at=NOON + timedelta(seconds=60))
    rounds(strict(kit))
    assert kit.latest(tables.RATINGS)["judged_at"].to_list() == [NOON + timedelta(seconds=60)]
    bronze.put(said(answer, "thumbs_down", second=120))
    rounds(strict(kit))
    (row,) = kit.latest(tables.RATINGS).to_dicts()
    assert (row["label"], row["judged_at"]) == (False, NOON + timedelta(seconds=120))
    assert kit.rows(tables.FEEDBACK)["event_time"].max() == NOON + timedelta(days=1)


def test_what_a_wrong_clock_puts_at_one_moment_keeps_its_own_order(kit: Kit, tmp_path: Path) -> None:
    """Taken in as one batch, with ids that say nothing of time."""
    (answer,) = asked(tmp_path, 1)
    thumbs = [
        said(answer, kind, second=86_400 + n, id=f"{9 - n}") for n, kind in enumerate(["thumbs_up", "withdrawal"])
    ]
    Bronze(kit).put(event(answer, time=NOON), *reversed(thumbs), by=NOON + timedelta(seconds=60))
    rounds(strict(kit))
    assert kit.latest(tables.RATINGS).height == 0


def test_a_burst_is_a_burst_whatever_the_clock_says(kit: Kit, tmp_path: Path) -> None:
    """Three within a minute, and a fourth that came between them and says it is of tomorrow."""
    answers = asked(tmp_path, 4)
    bronze, refine = Bronze(kit), strict(kit)
    bronze.put(*(event(a, time=NOON) for a in answers))
    for n, answer in enumerate(answers[:3]):
        bronze.put(said(answer, "thumbs_up", second=10 * n))
    rounds(refine)
    assert set(weights(kit).values()) == {(1.0, None)}
    bronze.put(said(answers[3], "thumbs_up", second=86_400), at=NOON + timedelta(seconds=15))
    rounds(refine)
    found = weights(kit)
    counted, burst = (1.0, None), (0.0, "burst")
    assert [found[a.response_id] for a in answers] == [counted, counted, burst, counted]


def test_where_the_first_of_the_same_opinions_is_withdrawn_the_next_one_counts(kit: Kit, tmp_path: Path) -> None:
    same = [output(f"{tmp_path.name}?", "canned") for _ in range(3)]
    bronze, refine = Bronze(kit), strict(kit)
    bronze.put(*map(event, same), *(said(a, "thumbs_down", second=100 * n) for n, a in enumerate(same)))
    rounds(refine)
    found = weights(kit)
    assert [found[a.response_id] for a in same] == [(1.0, None), (0.0, "duplicate"), (0.0, "duplicate")]
    bronze.put(said(same[0], "withdrawal", second=500))
    rounds(refine)
    found = weights(kit)
    assert [found.get(a.response_id) for a in same] == [None, (1.0, None), (0.0, "duplicate")]


def test_raters_are_weighed_by_agreement_volume_and_gold_and_only_changes_are_written(kit: Kit, tmp_path: Path) -> None:
    answers = [output(f"{tmp_path.name} {n}?", f"text {n}") for n in range(8)]
    gold = tmp_path / "gold.jsonl"
    gold.write_text("\n".join(json.dumps({"task_id": f"task-{n}", "chosen": f"text {n}"}) for n in range(4)))
    up = [said(a, "thumbs_up", user, 100 * n) for n, a in enumerate(answers) for user in ("ann", "bob")]
    down = [said(a, "thumbs_down", "odd", 100 * n) for n, a in enumerate(answers)]
    right = [label(a, "lea", Verdict.LEFT, task=f"task-{n}", minute=n) for n, a in enumerate(answers[:4])]
    wrong = [label(a, "max", Verdict.RIGHT, task=f"task-{n}", minute=n) for n, a in enumerate(answers[:4])]
    bronze, refine = Bronze(kit), strict(kit, gold_answers=gold)
    bronze.put(*map(event, answers), *up, *down, *right, *wrong)
    rounds(refine)
    rows = {r["rater_id"]: r for r in kit.latest(tables.ANNOTATORS).to_dicts()}
    assert rows.keys() == {"ann", "bob", "odd", "labeler:lea", "labeler:max"}
    assert rows["ann"]["reliability"] > 0.8 > rows["odd"]["reliability"]
    assert rows["ann"]["weight"] > rows["odd"]["weight"]
    assert (rows["ann"]["judgements"], rows["ann"]["overlapping"]) == (8, 8)
    # Of four gold questions all right: "text n" is the second of the two texts, so one class has (8 + 4) / 14.
    lea, other = rows["labeler:lea"], rows["labeler:max"]
    assert (lea["gold_asked"], lea["gold_right"], other["gold_right"]) == (4, 4, 0)
    assert lea["reliability"] == round((12 / 14 + 0.8) / 2, 3)
    assert other["reliability"] == round((8 / 14 + 0.8) / 2, 3)
    written = kit.rows(tables.ANNOTATORS).height
    bronze.put(event(output(f"{tmp_path.name} more?", "silence")))
    rounds(refine)
    rounds(strict(kit, gold_answers=gold))
    assert kit.rows(tables.ANNOTATORS).height == written


def _answered(queued: dict[str, Any], labeler: str, says: str, *, minute: float) -> Event[Any]:
    """The label of a task of the queue that prefers the text `says`."""
    task = {name: queued[name] for name in ("task_id", "prompt_id", "prompt", "left", "right", "purposes")}
    verdict = Verdict.LEFT if queued["left"]["completion"] == says else Verdict.RIGHT
    given = Label.model_validate(task | {"labeler_id": labeler, "verdict": verdict, "seconds_taken": 4})
    return event(given, time=NOON + timedelta(minutes=minute))


def test_gold_questions_come_among_the_tasks_and_measure_whoever_answers_them(kit: Kit, tmp_path: Path) -> None:
    answers = asked(tmp_path, 8, purposes=("training", "labeling"))
    bronze = Bronze(kit)
    bronze.put(*(event(a, time=NOON) for a in answers))
    questions = [f"{tmp_path.name} gold {n}?" for n in range(4)]
    gold = tmp_path / "gold.jsonl"
    lines = [{"prompt": q, "left": "right answer", "right": "wrong", "chosen": "right answer"} for q in questions]
    gold.write_text("\n".join(map(json.dumps, lines)))
    raters, selection = STRICT.model_copy(update={"gold_answers": gold}), SelectionSettings(gold_share=0.25)

    def worked() -> list[dict[str, Any]]:
        """A start of refine; the gold questions in the queue by then."""
        rounds(kit.refine(raters=raters, selection=selection))
        rows = kit.rows(tables.LABEL_QUEUE).to_dicts()
        return [row for row in rows if row["prompt"][-1]["content"] in questions]

    score(kit, answers)
    first = worked()
    queued = kit.rows(tables.LABEL_QUEUE)
    assert (len(first), queued.height, queued["task_id"].n_unique()) == (3, 15, 15)
    assert {tuple(p) for p in queued["purposes"].to_list()} == {("training", "labeling")}
    messages = kit.read(topics.LABEL_TASKS.name)
    assert set(queued["task_id"].to_list()) <= {(m.key() or b"").decode() for m in messages}
    assert {row["task_id"] for row in worked()} == {row["task_id"] for row in first}

    bronze.put(*(_answered(row, "lea", "right answer", minute=n) for n, row in enumerate(first)))
    worked()
    score(kit, answers)
    second = [row for row in worked() if row not in first]
    assert len(second) == 3
    last = (set(questions) - {row["prompt"][-1]["content"] for row in first}).pop()
    assert last in [row["prompt"][-1]["content"] for row in second]
    bronze.put(*(_answered(row, "max", "wrong", minute=10 + n) for n, row in enumerate(second)))
    worked()

    found = {row["rater_id"]: row for row in kit.latest(tables.ANNOTATORS).to_dicts()}
    measured = {who: (row["gold_asked"], row["gold_right"]) for who, row in found.items()}
    assert measured == {"labeler:lea": (3, 3), "labeler:max": (3, 0)}
    # What two disagreed about says nothing; what one alone said is a pair, however often it was asked.
    pairs = kit.latest(tables.PREFERENCES).to_dicts()
    assert sorted((p["chosen"], p["rater_id"]) for p in pairs) == [("right answer", "lea"), ("wrong", "max")]
    rebuilt = Rebuild(kit.settings.model_copy(update={"raters": raters})).run(mend=False)
    assert [report.table for report in rebuilt if not report.identical] == []


def test_a_task_from_before_can_be_asked_as_a_gold_question_again(kit: Kit, tmp_path: Path) -> None:
    answers = asked(tmp_path, 5, purposes=("training", "labeling"))
    bronze, gold = Bronze(kit), tmp_path / "gold.jsonl"
    bronze.put(*(event(a, time=NOON) for a in answers))
    score(kit, answers)
    rounds(strict(kit))
    (known, *_) = kit.rows(tables.LABEL_QUEUE).to_dicts()
    better = known["right"]["completion"]
    bronze.put(_answered(known, "lea", better, minute=1))
    gold.write_text(json.dumps({"task_id": known["task_id"], "chosen": better}))
    more = asked(tmp_path, 12, purposes=("training", "labeling"))[5:]
    bronze.put(*(event(a, time=NOON) for a in more))
    rounds(strict(kit))
    score(kit, more)
    selection = SelectionSettings(gold_share=0.5)
    rounds(kit.refine(raters=STRICT.model_copy(update={"gold_answers": gold}), selection=selection))
    sides = {better, known["left"]["completion"]}
    rows = kit.rows(tables.LABEL_QUEUE).to_dicts()
    same = [row for row in rows if {row["left"]["completion"], row["right"]["completion"]} == sides]
    assert len({row["task_id"] for row in same}) == 2
    known_ids = {side["response_id"] for row in same for side in (row["left"], row["right"])}
    assert known_ids == {known["left"]["response_id"], known["right"]["response_id"]}


def test_what_never_met_is_counted_by_day_and_reason(kit: Kit, tmp_path: Path) -> None:
    answered, silent, ours = (*asked(tmp_path), *asked(tmp_path, 1, tenant="acme"))
    lost = output(f"{tmp_path.name}?", "never recorded")
    Bronze(kit).put(
        *(event(a, time=NOON) for a in (answered, silent, ours)),
        said(answered, "thumbs_up"),
        said(ours, "thumbs_up", second=86_400),
        said(lost, "thumbs_up", second=10, id="lost"),
        said(lost, "thumbs_up", second=10, id="lost"),
    )
    refine = strict(kit)
    rounds(refine)
    day, next_day = NOON.date(), (NOON + timedelta(days=1)).date()
    assert unmet(kit.data / "lake").rows() == [
        (day, "silent", 2), (day, "unknown_response", 1), (next_day, "wrong_tenant", 1)
    ]  # fmt: skip
    assert refine.silence.count() == 2
    Bronze.put(_again(kit), said(silent, "flag", second=70))
    rounds(refine)
    assert refine.silence.count() == strict(kit).silence.count() == 1


def _again(kit: Kit) -> Bronze:
    """A bronze that goes on behind what is there."""
    bronze = Bronze(kit)
    bronze._ends = {t.name: kit.rows(t).height for t in (tables.OUTPUTS, tables.FEEDBACK, tables.LABELS)}
    return bronze


def test_a_label_on_an_answer_that_turns_out_to_be_refused_loses_its_pair(kit: Kit, tmp_path: Path) -> None:
    (refused,) = asked(tmp_path, 1, purposes=())
    bronze, refine = Bronze(kit), strict(kit)
    bronze.put(label(refused, "lea", Verdict.LEFT))
    rounds(refine)
    assert kit.latest(tables.PREFERENCES).height == 1
    bronze.put(event(refused))
    rounds(refine)
    assert kit.latest(tables.PREFERENCES).height == 0


def test_a_label_on_texts_that_may_not_be_learned_from_teaches_nothing(kit: Kit, tmp_path: Path) -> None:
    """Neither a pair nor how far its labelers can be trusted; a later label with consent counts."""
    shown, other = asked(tmp_path)
    bronze, refine = Bronze(kit), strict(kit)
    refused = [label(shown, who, Verdict.LEFT, purposes=("labeling",)) for who in ("lea", "max")]
    bronze.put(*refused, label(other, "lea", Verdict.LEFT, task="task-2", purposes=("training",)))
    rounds(refine)
    assert kit.rows(tables.LABELS).height == 3
    assert kit.latest(tables.PREFERENCES)["chosen"].to_list() == ["answer 1"]
    assert kit.latest(tables.ANNOTATORS).height == 0
    bronze.put(*(label(shown, who, Verdict.LEFT, minute=1) for who in ("lea", "max")))
    rounds(strict(kit))  # the first one's next estimate waits its turn
    assert sorted(kit.latest(tables.PREFERENCES)["chosen"].to_list()) == ["answer 0", "answer 1"]
    assert kit.latest(tables.ANNOTATORS)["overlapping"].to_list() == [1, 1]


def _history(tmp_path: Path, seed: int) -> list[Event[Any]]:
    """An hour in which everything happens that a rule is about, in no order; some clocks are a day ahead."""
    rng = random.Random(seed)
    tenants, consents = (None, None, "acme"), (None, None, None, (), ("training",))
    answers: list[Output] = []
    for n in range(40):
        tenant, request = rng.choice(tenants), f"request-{n // 2}" if rng.random() < 0.3 else None
        about = answers[-1] if answers and request and n % 2 else None
        question = about.prompt[0].content if about else f"{tmp_path.name} {seed} {rng.randrange(4)}?"
        answers.append(
            output(
                question,
                f"answer {rng.randrange(6)}",
                tenant=about.tenant if about else tenant,
                request_id=request,
                purposes=rng.choice(consents),
                shadow_of=rng.choice(answers).response_id if answers and rng.random() < 0.1 else None,
                regenerates=rng.choice(answers).response_id if answers and rng.random() < 0.2 else None,
            )
        )
    forged = [a.model_copy(update={"completion": "forged", "prompt_id": b.prompt_id})
              for a, b in zip(answers[:3], answers[9:], strict=False)]  # fmt: skip
    known = [event(a, time=NOON + timedelta(minutes=n)) for n, a in enumerate([*answers, *forged])]
    kinds = ["thumbs_up", "thumbs_down"] * 3 + ["withdrawal", "correction", "copy", "flag", "comment"]
    for n in range(150):
        about, kind = rng.choice(answers), rng.choice(kinds)
        known.append(
            said(
                about if n % 15 else about.model_copy(update={"response_id": new_response_id()}),
                kind,
                rng.choice(("ann", "bob", "cem", None)),
                rng.choice((rng.randrange(3600), rng.randrange(90))) + rng.choice((*[0] * 9, 86_400)),
                id=f"event-{seed}-{n if n % 12 else n // 2}",
                text=f"better {n % 3}" if kind in ("correction", "comment") else None,
                tenant=about.tenant if rng.random() < 0.95 else "evil",
                purposes=rng.choice(consents),
            )
        )
    for n in range(30):
        verdict = rng.choice([Verdict.LEFT] * 3 + list(Verdict))
        place = {"task": f"task-{n % 7}", "minute": rng.randrange(60)}
        known.append(label(answers[n % 7], f"lea-{n % 4}", verdict, purposes=rng.choice(consents), **place))
    canned = [output(f"{tmp_path.name} {seed} canned?", "canned") for _ in range(4)]
    known += [event(a, time=NOON) for a in canned]
    known += [said(a, "thumbs_up", rng.choice(("dora", "dora", "emil")), 1000 * n) for n, a in enumerate(canned)]
    known += [said(canned[0], "thumbs_up", "dora", 5), said(canned[3], "thumbs_up", "dora", 5000)]
    hurried = [output(f"{tmp_path.name} {seed} hurried {n % 2}?", f"text {n}") for n in range(6)]
    known += [event(a, time=NOON) for a in hurried]
    known += [said(a, "thumbs_up" if n % 3 else "thumbs_down", "hal", 7 * n) for n, a in enumerate(hurried)]
    known += rng.sample(known, 15)
    rng.shuffle(known)
    return known


def _derived(kit: Kit) -> dict[str, list[dict[str, Any]]]:
    return {table.name: content(kit.latest(table)) for table in DERIVED}


def _in_batches(history: Sequence[Event[Any]], rng: random.Random) -> list[Sequence[Event[Any]]]:
    cuts = sorted({0, len(history), *(rng.randrange(len(history)) for _ in range(9))})
    return [history[low:high] for low, high in itertools.pairwise(cuts)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_order_any_batches_repeats_and_restarts_come_to_the_same_rows(
    broker: str, tmp_path: Path, seed: int
) -> None:
    history, rng = _history(tmp_path, seed), random.Random(seed)
    whole, parts = Kit(broker, tmp_path / "whole"), Kit(broker, tmp_path / "parts")
    Bronze(whole).put(*history, by=EVENING)
    rounds(strict(whole))
    shuffled = [*history, *rng.sample(history, 10)]
    rng.shuffle(shuffled)
    bronze, refine = Bronze(parts), strict(parts)
    for batch in _in_batches(shuffled, rng):
        bronze.put(*batch, by=EVENING)
        if rng.random() < 0.4:
            refine = parts.refine(raters=STRICT, refine_rows=rng.choice((15, 1000)))
        rounds(refine)
    rounds(strict(parts))
    expected = _derived(whole)
    assert _derived(parts) == expected
    rebuilt = Rebuild(parts.settings.model_copy(update={"raters": STRICT})).run(mend=False)
    assert [report.table for report in rebuilt if not report.identical] == []
    ratings, pairs = (pl.DataFrame(expected[t.name]) for t in (tables.RATINGS, tables.PREFERENCES))
    assert {"burst", "duplicate"} <= set(ratings["discounted"].to_list())
    assert {"same_prompt", "correction", "label"} <= set(pairs["source"].to_list())
    assert len(expected["annotators"]) >= 3
