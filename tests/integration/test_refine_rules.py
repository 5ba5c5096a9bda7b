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

from schemas import tables
from schemas.envelope import Event
from schemas.feedback import Feedback, FeedbackKind
from schemas.ids import new_response_id
from schemas.labels import Candidate, Label, Verdict
from schemas.outputs import Output
from streams.orphans import unmet
from streams.refine import Refine
from streams.settings import RaterSettings
from tests.integration.streams_kit import Kit, content, event, output
from tests.integration.test_refine import NOON, Bronze, asked, rounds

STRICT = RaterSettings(burst_limit=3, estimate_seconds=0, cap=5)
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


def label(about: Output, labeler: str, verdict: Verdict, *, task: str = "task-1", minute: float = 0.0) -> Event[Any]:
    given = Label(
        task_id=task,
        labeler_id=labeler,
        verdict=verdict,
        prompt_id=about.prompt_id,
        prompt=about.prompt,
        left=Candidate(completion=about.completion, response_id=about.response_id),
        right=Candidate(completion="the other text"),
        seconds_taken=4,
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


def _history(tmp_path: Path, seed: int) -> list[Event[Any]]:
    """An hour in which everything happens that a rule is about, in no order."""
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
                rng.choice((rng.randrange(3600), rng.randrange(90))),
                id=f"event-{seed}-{n if n % 12 else n // 2}",
                text=f"better {n % 3}" if kind in ("correction", "comment") else None,
                tenant=about.tenant if rng.random() < 0.95 else "evil",
                purposes=rng.choice(consents),
            )
        )
    for n in range(30):
        verdict = rng.choice([Verdict.LEFT] * 3 + list(Verdict))
        known.append(label(answers[n % 7], f"lea-{n % 4}", verdict, task=f"task-{n % 7}", minute=rng.randrange(60)))
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
    Bronze(whole).put(*history)
    rounds(strict(whole))
    shuffled = [*history, *rng.sample(history, 10)]
    rng.shuffle(shuffled)
    bronze, refine = Bronze(parts), strict(parts)
    for batch in _in_batches(shuffled, rng):
        bronze.put(*batch)
        if rng.random() < 0.4:
            refine = parts.refine(raters=STRICT, refine_rows=rng.choice((5, 1000)))
        rounds(refine)
    rounds(strict(parts))
    expected = _derived(whole)
    assert _derived(parts) == expected
    ratings, pairs = (pl.DataFrame(expected[t.name]) for t in (tables.RATINGS, tables.PREFERENCES))
    assert {"burst", "duplicate"} <= set(ratings["discounted"].to_list())
    assert {"same_prompt", "correction", "label"} <= set(pairs["source"].to_list())
    assert len(expected["annotators"]) >= 3
