"""True win rates by hand."""

import pytest

from infra.demo.statistics import Estimate
from infra.lab.judging import Public, mean_words, standing, win_rates


def words(prompt: str, text: str) -> float:
    return float(len(text.split()))


def brevity(prompt: str, text: str) -> float:
    return -words(prompt, text)


OURS, THEIRS = [["a b c", "a"], ["a b"]], [["a b"], ["a b"]]
"""The first prompt: one longer and one shorter answer than theirs. The second: a tie."""


def test_wins_are_counted_over_all_pairs_and_ties_are_half() -> None:
    public = Public({"all": words}, {"all": 1.0})
    found = win_rates(["p", "q"], [["a b c", "a b c d"], ["a b"]], THEIRS, public, seed=0)
    # 1.0 and 0.5.
    assert (found.everybody.value, found.everybody.n) == (0.75, 2)
    assert (found.everybody.low, found.everybody.high) == (0.5, 1.0)


def test_segments_are_weighed_by_their_share_of_the_people() -> None:
    public = Public({"long": words, "short": brevity}, {"long": 0.75, "short": 0.25})
    found = win_rates(["p"], [["a b c"]], [["a b"]], public, seed=0)
    assert found.everybody.value == pytest.approx(0.75)
    assert {name: rate.value for name, rate in found.segments.items()} == {"long": 1.0, "short": 0.0}


def test_the_same_answers_are_worth_the_same() -> None:
    found = win_rates(["p", "q"], OURS, OURS, Public({"all": words}, {"all": 1.0}), seed=0)
    assert found.everybody.value == 0.5


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.51, 0.6, "better"),
        (0.4, 0.49, "worse"),
        (0.45, 0.55, "unclear"),
        (0.5, 0.6, "unclear"),
        (0.4, 0.5, "unclear"),
    ],
)
def test_a_version_is_better_or_worse_only_where_the_interval_excludes_one_half(
    low: float, high: float, expected: str
) -> None:
    assert standing(Estimate(0.5, low, high, 80)) == expected


def test_words_are_counted_an_answer() -> None:
    assert mean_words([["a b c", "a"], ["a b"]]) == 2.0
