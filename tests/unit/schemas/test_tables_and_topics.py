import json

from schemas import tables, topics


def column(table: tables.Table, name: str) -> dict[str, object]:
    fields = json.loads(table.delta_schema())["fields"]
    return next(f for f in fields if f["name"] == name)


def test_tables_have_names_and_paths_of_their_own() -> None:
    assert len({t.path for t in tables.ALL}) == len({t.name for t in tables.ALL}) == len(tables.ALL)


def test_every_table_has_its_row_id_as_a_column_that_is_never_null() -> None:
    for table in tables.ALL:
        assert column(table, table.key)["nullable"] is False, table.name


def test_every_topic_that_names_a_table_is_appended_to_it() -> None:
    assert {t.table for t in topics.ALL if t.table} == {t.name for t in tables.ALL if t.topic}


def test_columns_come_from_the_models_with_their_nullability() -> None:
    assert column(tables.FEEDBACK, "kind") == {"name": "kind", "type": "string", "nullable": False, "metadata": {}}
    assert column(tables.FEEDBACK, "text")["nullable"] is True
    assert column(tables.FEEDBACK, "event_time")["type"] == "timestamp"
    assert column(tables.DEAD_LETTERS, "value")["type"] == "binary"


def test_a_prompt_is_a_list_of_messages() -> None:
    message = {
        "type": "struct",
        "fields": [
            {"name": "role", "type": "string", "nullable": False, "metadata": {}},
            {"name": "content", "type": "string", "nullable": False, "metadata": {}},
        ],
    }
    assert column(tables.PREFERENCES, "prompt")["type"] == {
        "type": "array",
        "elementType": message,
        "containsNull": False,
    }


def test_training_tables_have_the_columns_that_trl_reads() -> None:
    assert {"prompt", "chosen", "rejected"} <= set(tables.PREFERENCES.columns())
    assert {"prompt", "completion", "label"} <= set(tables.RATINGS.columns())


def test_every_topic_and_its_dead_letters_are_in_the_plan_with_bounded_or_compacted_storage() -> None:
    plan = topics.plan()
    assert set(plan) == {t.name for t in topics.ALL} | {f"{t.name}.dlq" for t in topics.ALL}
    for _, settings in plan.values():
        assert settings["cleanup.policy"] == "compact" or int(settings["retention.bytes"]) > 0
