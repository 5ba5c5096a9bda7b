"""`summary.json`: the keys that others rely on, and what they are made from."""

import json
from collections import Counter
from pathlib import Path

import pytest

from infra.demo import summary
from infra.demo.summary import Exactness, exactness
from schemas.feedback import FeedbackKind
from tests.unit.infra.demo.outcomes import outcome


def test_the_summary_has_the_keys_that_other_programs_rely_on() -> None:
    built = summary.build(outcome())
    assert {"versions", "events", "seconds", "seed", "model"} <= built.keys()
    assert {"sent", "in_tables", "dead_letters"} <= built["events"].keys()
    wanted = {
        "version", "parent", "true_taste_mean", "win_rate_vs_base", "win_rate_ci", "kl", "promoted",
    }  # fmt: skip
    assert all(wanted <= version.keys() for version in built["versions"])
    assert (built["seconds"], built["seed"], built["model"]) == (123.5, 3, "tiny")


def test_events_are_counted_once_however_often_they_were_sent() -> None:
    events = summary.build(outcome())["events"]
    assert events["sent"] == 4 + 2 + 1 == events["in_tables"]
    assert events["feedback_sendings"] == 3
    assert events["dead_letters"] == 3


def test_a_version_has_its_win_rate_its_thumbs_and_whether_it_was_promoted() -> None:
    base, v1 = summary.build(outcome())["versions"]
    assert (base["version"], base["win_rate_vs_base"], base["win_rate_ci"]) == ("base", 0.5, [0.5, 0.5])
    # Both samples of v1 beat both of the base on three prompts (1.5 against 0 and 1), and tie on the fourth.
    assert v1["win_rate_vs_base"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert (v1["parent"], v1["kl"], v1["promoted"], v1["preference_rate"]) == ("base", 3.0, True, 0.8)


def test_the_summary_is_plain_json_and_replaces_the_old_one_in_one_step(tmp_path: Path) -> None:
    (tmp_path / summary.FILE).write_text("{}")
    path = summary.write(tmp_path, summary.build(outcome()))
    assert json.loads(path.read_text())["seed"] == 3
    assert [p.name for p in tmp_path.iterdir()] == [summary.FILE]


def test_ids_that_are_missing_or_there_twice_are_counted() -> None:
    assert exactness({"a", "b"}, Counter({"a": 1, "b": 1})) == Exactness(2, 0, 0)
    assert exactness({"a", "b", "c"}, Counter({"a": 3})) == Exactness(3, 2, 2)
    assert not Exactness(3, 2, 2).holds


def test_traffic_is_counted_in_stretches_of_time() -> None:
    up, down = FeedbackKind.THUMBS_UP, FeedbackKind.THUMBS_DOWN
    assert summary.traffic([(1, "base", up), (14.9, "base", None), (15, "base", down), (16, "v1", up)]) == [
        {"second": 0, "version": "base", "answers": 2, "up": 1, "down": 0},
        {"second": 15, "version": "base", "answers": 1, "up": 0, "down": 1},
        {"second": 15, "version": "v1", "answers": 1, "up": 1, "down": 0},
    ]
