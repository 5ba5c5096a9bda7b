"""Reading the newest labels alone gives a cycle the labels that reading all of them gives."""

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas import tables
from schemas.errors import NotEnoughData
from schemas.tables import AnnotatorRow
from tests.integration import trainer_lake as rows
from trainer.adapters.lake import Pinned, TrainerLake
from trainer.core.dataset import Dataset, SplitConfig, build, countable


def history(data: Path, seed: int) -> TrainerLake:
    """Thumbs and pairs of 90 moments in three appends: revised, withdrawn, flawed, distrusted, refused, at once."""
    rng = random.Random(seed)
    for part in range(3):
        new = range(part * 30, part * 30 + 30)
        old = rng.sample(range(part * 30), 5 * part)  # revised later
        ratings = [rating(rng, n, 1) for n in new] + [rating(rng, n, part + 1) for n in old]
        pairs = [pair(rng, n, 1) for n in new] + [pair(rng, n, part + 1) for n in old]
        rows.write(data, tables.RATINGS, rng.sample(ratings, len(ratings)))
        rows.write(data, tables.PREFERENCES, rng.sample(pairs, len(pairs)))
        purposes = [["training"], ["training"], ["training"], None, ["serving"]]
        rows.write(data, tables.RESPONSES, [rows.response(n, purposes=rng.choice(purposes)) for n in new])
    rows.write(data, tables.ANNOTATORS, [annotator(f"u{n}", rng.choice([0.0, 0.5, 1.0])) for n in range(20)])
    return TrainerLake(data / "lake")


def annotator(rater: str, weight: float) -> dict[str, Any]:
    return AnnotatorRow(
        rater_id=rater, revision=1, kind="user", judgements=9, overlapping=3, reliability=0.5, low=0.2, high=0.8,
        weight=weight, estimated_at=rows.EPOCH,
    ).model_dump()  # fmt: skip


def changes(rng: random.Random, n: int, revision: int) -> dict[str, Any]:
    return {
        "revision": revision,
        "retracted": rng.random() < 0.1,
        "weight": rng.choice([1.0, 1.0, 0.5, 0.0]),
        "judged_at": rows.EPOCH + timedelta(seconds=(n + revision * 7) // 2),
    }


def rating(rng: random.Random, n: int, revision: int) -> dict[str, Any]:
    text = rng.choice([rows.answer(n, n % 2 == 0), rows.answer(n, n % 2 == 0), " "])
    return rows.rating(n, **changes(rng, n, revision), completion=text, response_id=rows.response_id(n // 2))


def pair(rng: random.Random, n: int, revision: int) -> dict[str, Any]:
    ids = {"chosen_response_id": rows.response_id(n), "rejected_response_id": rows.response_id(n // 3)}
    given: dict[str, Any] = rng.choice([{"source": "label"}, {"source": "same_prompt"} | ids])
    same = rng.random() < 0.1
    return rows.preference(
        n, **changes(rng, n, revision), **given, rejected=rows.answer(n, same), chosen=rows.answer(n, True)
    )


def built(pinned: Pinned, config: SplitConfig) -> Dataset | str:
    try:
        return build(pinned.pairs, pinned.ratings, pinned.prompts, config, thumbs=pinned.thumbs, older=pinned.older)
    except NotEnoughData as error:
        return str(error).split(" (left out", maxsplit=1)[0]


@pytest.mark.parametrize("seed", range(12))
def test_a_cycle_gets_the_same_labels_whether_all_or_the_newest_are_read(tmp_path: Path, seed: int) -> None:
    lake = history(tmp_path, seed)
    pins = lake.pins()
    whole = lake.read(pins)
    for limit in (25, 60, 500):
        config = SplitConfig(max_labels=limit, min_labels=2, min_raters=3, seed=seed, judge_only_share=0.2)
        part = lake.read(pins, newest_labels=limit, counts=countable(config))
        assert len(part.pairs) + len(part.ratings) < whole.labels or limit > 25
        ours, all_of_them = built(part, config), built(whole, config)
        if isinstance(all_of_them, str) or isinstance(ours, str):
            assert ours == all_of_them
            continue
        assert ours.content_hash == all_of_them.content_hash
        assert (ours.train, ours.held_out, ours.judge) == (all_of_them.train, all_of_them.held_out, all_of_them.judge)
        assert ours.judge_only == all_of_them.judge_only and ours.judged_by == all_of_them.judged_by
        assert ours.figures == all_of_them.figures
        left = part.older - (whole.labels - part.labels)
        assert sum(ours.dropped.values()) == sum(all_of_them.dropped.values()) + left


def test_of_older_labels_no_text_is_read_and_those_left_out_are_counted(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(n) for n in range(6)])
    rows.write(tmp_path, tables.PREFERENCES, [rows.preference(n, source="same_prompt") for n in (0, 5)])
    rows.write(
        tmp_path,
        tables.PREFERENCES,
        [
            rows.preference(
                7,
                source="same_prompt",
                chosen_response_id=rows.response_id(1),
                rejected_response_id=rows.response_id(5),
            )
        ],
    )
    lake = TrainerLake(tmp_path / "lake")
    read = lake.read(lake.pins(), newest_labels=2)
    # at second 7 a pair, at second 5 a pair and a thumb: of the same moment the lower id is first
    assert [r.id for r in read.pairs] == ["pair-5", "pair-7"] and read.ratings == ()
    assert [(r.id, r.completion, r.prompt, r.rater) for r in read.thumbs] == [
        ("rating-1", "", (), "u1"),
        ("rating-5", "", (), "u5"),
    ]
    assert (read.labels, read.older) == (2, 7)
    assert read.prompts == {}


def test_labels_that_do_not_count_make_older_ones_be_read(tmp_path: Path) -> None:
    rows.write(tmp_path, tables.RATINGS, [rows.rating(n, weight=float(n < 4)) for n in range(10)])
    lake = TrainerLake(tmp_path / "lake")
    config = SplitConfig(max_labels=2)
    read = lake.read(lake.pins(), newest_labels=2, counts=countable(config))
    assert {f"rating-{n}" for n in (2, 3)} <= {r.id for r in read.ratings if r.weight}
    assert [r.id for r in lake.read(lake.pins(), newest_labels=2).ratings] == ["rating-8", "rating-9"]
