"""Which domain a label and a prompt belong to."""

from pathlib import Path

import polars as pl
import pytest
import torch

from trainer.adapters.answers_file import read_answers
from trainer.adapters.lake import Answer
from trainer.adapters.traffic import traffic_of
from trainer.core.dataset import Labels
from trainer.core.domains import Traffic
from trainer.core.labels import PairRow, RatingRow, Turn, prompt_key
from trainer.features import FeatureTable, reward_data

TEA: tuple[Turn, ...] = (("user", "Tea?"),)
SHOUTED: tuple[Turn, ...] = (("user", "TEA"),)


def pair(source: str, *responses: str, rater: str = "ann") -> PairRow:
    return PairRow("p", "t", TEA, "yes", "no", 1.0, source, rater, 0.0, responses)


def thumb(id: str, response: str, rater: str | None) -> RatingRow:
    return RatingRow(id, "t", TEA, "yes", True, 1.0, "thumb", rater, 0.0, response)


TRAFFIC = Traffic(
    answered={"r1": "shop", "r2": "shop", "r3": "help", "r4": ""},
    asked={prompt_key(TEA): {"": 1, "help": 1, "shop": 2}},
    raters={"r1": "ann", "r2": "bob", "r3": "ann"},
)


@pytest.mark.parametrize(
    ("row", "domain"),
    [
        (pair("siblings", "r1", "r2"), "shop"),
        (pair("same_prompt", "r1", "r3"), ""),  # of two domains: neither's taste
        (pair("correction", "r3"), "help"),
        (pair("label", "r1", "unknown"), "shop"),
        (pair("label"), ""),
        (thumb("a", "r3", "ann"), "help"),
        (thumb("a", "r4", "ann"), ""),
        (thumb("a", "", "ann"), ""),
    ],
)
def test_a_label_is_of_the_domain_that_its_answers_were_served_in(row: PairRow | RatingRow, domain: str) -> None:
    assert TRAFFIC.domain(row) == domain


def test_two_people_are_behind_a_pair_that_was_made_from_their_thumbs() -> None:
    assert TRAFFIC.other(pair("same_prompt", "r1", "r2")) == "bob"
    assert TRAFFIC.other(pair("same_prompt", "r1", "r3")) is None  # ann, twice
    assert TRAFFIC.other(pair("siblings", "r1", "r2")) is None


def test_a_prompt_is_of_each_domain_that_asks_it_in_shares_of_its_answers() -> None:
    assert TRAFFIC.shares(TEA) == (("help", 0.25), ("shop", 0.5))
    assert TRAFFIC.shares(SHOUTED) == TRAFFIC.shares(TEA)  # the same prompt up to case and punctuation
    assert TRAFFIC.shares((("user", "Coffee?"),)) == ()


ANSWERS = pl.DataFrame(
    {
        "response_id": ["r1", "r2", "r3", "r4"],
        "prompt_id": ["tea", "tea", "tea!", "milk"],
        "segment": ["shop", "help", "shop", "shop"],
        "tenant": ["north", None, "north", "south"],
    }
)
PROMPTS: dict[str, tuple[Turn, ...]] = {"tea": TEA, "tea!": SHOUTED, "milk": (("user", "Milk?"),)}


def test_the_traffic_is_counted_by_segment_or_by_tenant() -> None:
    thumbs = [thumb("b", "r1", "bob"), thumb("a", "r2", None)]
    by_segment = traffic_of(ANSWERS, PROMPTS, thumbs, "segment")
    assert by_segment.answered == {"r1": "shop", "r2": "help", "r3": "shop", "r4": "shop"}
    assert by_segment.shares(TEA) == (("help", 1 / 3), ("shop", 2 / 3))
    assert by_segment.raters == {"r1": "bob", "r2": "unknown:a"}
    by_tenant = traffic_of(ANSWERS, PROMPTS, thumbs, "tenant")
    assert by_tenant.answered == {"r1": "north", "r2": "", "r3": "north", "r4": "south"}
    assert by_tenant.shares(TEA) == (("north", 2 / 3),)
    assert traffic_of(ANSWERS, PROMPTS, thumbs, "none") == Traffic()


def test_labels_as_tensors_know_their_domains_and_who_else_is_behind_them() -> None:
    labels = Labels((pair("same_prompt", "r1", "r2"),), (thumb("a", "r3", "cat"),))
    table = FeatureTable({(TEA, "yes"): 0, (TEA, "no"): 1}, torch.zeros(2, 3), 0)
    found = reward_data(labels, table, traffic=TRAFFIC)
    assert found.domains is not None
    assert (found.domains.names_P, found.domains.names_R) == (("shop",), ("help",))
    # cat is 0 and ann is 1 (thumbs first); bob rates nothing here and is the next one.
    assert (found.raters_R.tolist(), found.raters_P.tolist(), found.domains.others_P.tolist()) == ([0], [1], [2])
    assert reward_data(labels, table).domains is None and reward_data(labels, table, traffic=Traffic()).domains is None


def test_an_answer_of_production_or_of_a_file_is_rated_where_it_was_served(tmp_path: Path) -> None:
    served = Answer("r1", "tea", TEA, "yes", "v1", "shop", "north")
    assert [served.domain(by) for by in ("none", "segment", "tenant")] == ["", "shop", "north"]
    file = tmp_path / "answers.jsonl"
    file.write_text(
        '{"prompt": "Tea?", "completion": "yes", "segment": "shop"}\n{"prompt": "Tea?", "response": "no"}\n'
    )
    assert [a.domain("segment") for a in read_answers(file, limit=9)] == ["shop", ""]
