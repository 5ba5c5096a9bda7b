"""Events straight into bronze: each collection once, whenever it was cut off."""

from pathlib import Path
from typing import Any

import pytest

from infra.demo.options import TINY
from infra.lab import bronze
from infra.lab.answering import Drawn
from infra.lab.bronze import Bronze
from infra.lab.collecting import Place, feedback, outputs
from infra.lab.population import Member, Role, Said, Visit
from infra.simulate.users import Kind, Reaction, User
from schemas import tables
from schemas.envelope import Event
from schemas.feedback import FeedbackKind
from streams.adapters.lake import latest, open_table

WHO = [Member(User(f"user-{n}", Kind.PERSON, 0.0, 1.0, 0.0), Role.PERSON, "default") for n in range(3)]


def collection(number: int) -> tuple[Place, list[Event[Any]], list[Event[Any]]]:
    """Three users, three answers, three thumbs, the first of which came twice."""
    place = Place(seed=0, cycle=number, visits=3)
    visits = [Visit(n, who, "Where is it?", again=False) for n, who in enumerate(WHO)]
    answers = [o for v in visits for o in outputs(
        place, v, [Drawn(f"Answer {v.number}.", 4, 3, True)], version="base", base_model="tiny", tuning=TINY
    )]  # fmt: skip
    up = [Said(0, 0, Reaction(FeedbackKind.THUMBS_UP))]
    thumbs = [event for v in visits for event in feedback(place, v, up)]
    return place, answers, [thumbs[0], *thumbs]


def store(into: Bronze, number: int, *names: str) -> None:
    place, answers, thumbs = collection(number)
    events = {"outputs": answers, "feedback": thumbs, "labels": []}
    for table in bronze.TAKEN:
        if table.name in names:
            into.store(number, table, events[table.name], ingested_at=place.ingested_at)


def height(folder: Path, table: tables.Table) -> int:
    return open_table(folder / "lake", table).all().collect().height


def test_a_collection_that_was_cut_off_between_two_tables_is_completed_and_not_doubled(tmp_path: Path) -> None:
    settings = bronze.settings_for(tmp_path)
    store(Bronze(settings), 1, "outputs")
    assert Bronze(settings).collected() == 0
    store(Bronze(settings), 1, "outputs", "feedback", "labels")
    assert Bronze(settings).collected() == 1
    assert (height(tmp_path, tables.OUTPUTS), height(tmp_path, tables.FEEDBACK)) == (3, 3)


def test_the_next_collection_goes_on_behind_the_last_one(tmp_path: Path) -> None:
    lake = Bronze(bronze.settings_for(tmp_path))
    for number in (1, 2, 2):
        store(lake, number, "outputs", "feedback", "labels")
    offsets = open_table(tmp_path / "lake", tables.FEEDBACK).all().collect()["kafka_offset"].to_list()
    assert sorted(offsets) == list(range(6)) and lake.collected() == 2


def test_refining_makes_the_rows_that_the_trainer_reads(tmp_path: Path) -> None:
    lake = Bronze(bronze.settings_for(tmp_path))
    store(lake, 1, "outputs", "feedback", "labels")
    lake.refine()
    lake.refine()  # nothing is left to do
    ratings = latest(open_table(tmp_path / "lake", tables.RATINGS))
    assert sorted(ratings["rater_id"].to_list()) == ["user-0", "user-1", "user-2"]
    assert ratings["label"].all() and set(ratings["revision"].to_list()) == {1}


def test_the_lab_never_writes_to_the_lake_of_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBWHEEL_LAKE", str(tmp_path / "production"))
    monkeypatch.setenv("THUMBWHEEL_DATA", str(tmp_path / "production"))
    lake = Bronze(bronze.settings_for(tmp_path / "lab"))
    store(lake, 1, "outputs", "feedback", "labels")
    lake.refine()
    assert not (tmp_path / "production").exists() and (tmp_path / "lab" / "lake").is_dir()
