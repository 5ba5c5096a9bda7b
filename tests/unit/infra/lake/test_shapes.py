"""The columns that TRL's trainers ask for (https://huggingface.co/docs/trl/dataset_formats)."""

import pyarrow as pa

from infra.lake.shapes import PREFERENCES, PROMPTS, UNPAIRED, Style, arrow_schema, record
from tests.unit.infra.lake import lake_kit as kit

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]


def test_a_preference_in_the_conversational_form() -> None:
    assert record(PREFERENCES, kit.preference(1), style=Style.MESSAGES, provenance=False) == {
        "prompt": [{"role": "user", "content": "question 1"}],
        "chosen": [{"role": "assistant", "content": "good 1"}],
        "rejected": [{"role": "assistant", "content": "bad 1"}],
    }


def test_a_rating_in_the_standard_form() -> None:
    row = kit.rating(2, label=False)
    assert record(UNPAIRED, row, style=Style.TEXT, provenance=False) == {
        "prompt": "question 2",
        "completion": "answer 2",
        "label": False,
    }


def test_a_longer_prompt_as_one_string_names_its_roles() -> None:
    row = {"prompt": CONVERSATION}
    assert record(PROMPTS, row, style=Style.TEXT, provenance=False) == {
        "prompt": "system: Be brief.\n\nuser: Hi\n\nassistant: Hello!\n\nuser: Bye"
    }
    assert record(PROMPTS, row, style=Style.MESSAGES, provenance=False) == {"prompt": CONVERSATION}


def test_provenance_comes_behind_the_columns_of_the_format() -> None:
    row = record(UNPAIRED, kit.rating(2), style=Style.TEXT, provenance=True)
    assert list(row)[:3] == ["prompt", "completion", "label"]
    assert (row["weight"], row["source"], row["rater_id"]) == (1.0, "thumb", "ann")
    assert row["response_id"] == kit.response_id(2)


def test_the_parquet_columns_are_those_of_the_rows() -> None:
    for style in Style:
        for provenance in (False, True):
            row = record(UNPAIRED, kit.rating(2), style=style, provenance=provenance)
            table = pa.Table.from_pylist([row], schema=arrow_schema(UNPAIRED, style=style, provenance=provenance))
            assert table.to_pylist() == [row]
