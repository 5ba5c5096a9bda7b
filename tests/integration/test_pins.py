"""What a version was trained on can be read again after the table's log has forgotten it, until it is erased."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from typer.testing import CliRunner

from infra.cli.tables import app as commands
from infra.provenance.deletion import delete_rows, forget_history
from schemas import tables
from schemas.errors import CorruptAdapter, DataGone, SettingsError, UnknownVersion
from schemas.storage import PINS_FOLDER, LakeRoot
from schemas.tables import ScoreRow, Table
from streams.adapters.lake import open_table
from tests.integration import trainer_lake as lake
from tests.integration.test_ingest_storage import store as store  # the fixture: a bucket in a store of its own process
from trainer import app
from trainer.adapters.events import MemoryEvents
from trainer.adapters.lake import TrainerLake
from trainer.adapters.pins import Pins
from trainer.adapters.registry import Registry
from trainer.cycle import CycleRunner
from trainer.records import Outcome
from trainer.settings import TrainerSettings


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder where v1 was trained on 120 ratings and 60 pairs; since then 20 came, and 10 were changed."""
    data = lake.fill(tmp_path_factory.mktemp("trained") / "data")
    settings = lake.settings(data, lake.tiny_base(tmp_path_factory.mktemp("base")))
    assert cycle(settings).version == "v1"
    lake.write(data, tables.RATINGS, [lake.rating(n) for n in range(120, 140)])
    lake.write(data, tables.RATINGS, [lake.rating(n, revision=2, label=n % 2 == 1) for n in range(10)])
    return data


@pytest.fixture
def data(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "data")


def cycle(settings: TrainerSettings) -> Outcome:
    return CycleRunner(settings, MemoryEvents(), load_base=app.loader(settings)).run()


def forget(data: Path, table: Table) -> None:
    """Upkeep, so long after the last commit that the log knows neither the versions nor the files that went."""
    log = data / "lake" / table.path / "_delta_log"
    for _ in range(2):
        opened = open_table(data / "lake", table)
        opened.keep_log(timedelta(minutes=1), files=timedelta(0))
        opened.append(opened.arrow([]), {})
        opened.compact(1 << 20)
        opened._handle.create_checkpoint()
        for entry in log.iterdir():
            os.utime(entry, (0, 0))
    opened = open_table(data / "lake", table)
    opened.keep_log(timedelta(minutes=1), files=timedelta(0))
    opened.clear(keep=timedelta(0), now=datetime.now(UTC))
    with pytest.raises(DeltaError):
        DeltaTable(str(data / "lake" / table.path), version=1)


def diff(data: Path, *arguments: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(commands, ["diff", *arguments, "--data", str(data), "--json"], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_was_pinned_reads_the_same_after_compaction_log_clean_up_and_vacuum(data: Path) -> None:
    pins, reader = Registry(data / "registry").pins("v1"), TrainerLake(data / "lake")
    before = reader.read(pins)
    for table in (tables.RATINGS, tables.PREFERENCES, tables.RESPONSES):
        forget(data, table)
    assert (len(before.ratings), len(before.pairs), reader.count_labels(pins)) == (120, 60, 180)
    assert reader.read(pins) == before
    newest = {rating.id: rating.label for rating in reader.read(reader.pins()).ratings}
    assert (len(newest), newest["rating-0"]) == (140, False)


def test_the_version_can_be_made_again_from_its_files(data: Path, trained: Path) -> None:
    for table in (tables.RATINGS, tables.PREFERENCES, tables.RESPONSES):
        forget(data, table)
    base = json.loads((data / "registry/v1/record.json").read_text())["base_model"]["path"]
    recorded, today = app.run_reproduce(lake.settings(data, Path(base)), "v1")
    assert recorded == today


def test_the_pins_are_names_of_files_and_the_record_holds_their_hash(data: Path) -> None:
    registry, file = Registry(data / "registry"), data / "registry/v1/pins.json"
    written = json.loads(file.read_text())
    assert {path: pin and pin["version"] for path, pin in written.items()} == registry.record("v1").tables
    assert [list(pin["files"].values()) for pin in written.values() if pin] == [[120], [60], [120]]
    file.write_text(file.read_text().replace("120", "121"))
    with pytest.raises(CorruptAdapter, match=r"pins\.json is not what the record of version v1 says"):
        registry.pins("v1")


def test_a_record_of_an_earlier_release_names_versions_only(data: Path) -> None:
    registry, file = Registry(data / "registry"), data / "registry/v1/record.json"
    record = json.loads(file.read_text())
    del record["pins_sha256"]
    file.write_text(json.dumps(record))
    assert registry.pins("v1") == Pins.of(record["tables"])
    reader = TrainerLake(data / "lake")
    assert reader.count_labels(registry.pins("v1")) == 180
    forget(data, tables.RATINGS)
    with pytest.raises(DataGone, match=r"version 1 of gold/ratings is not in its log any more"):
        reader.read(registry.pins("v1"))


def test_an_erasure_takes_pinned_files_too_and_the_error_says_so(data: Path) -> None:
    pins, folder = Registry(data / "registry").pins("v1"), data / "lake" / tables.RATINGS.path
    forget(data, tables.RATINGS)
    assert pins.ratings is not None and pins.ratings.files is not None
    (old,) = (folder / path for path in pins.ratings.files)
    days_ago = datetime.now(UTC).timestamp() - 3 * 86_400
    os.utime(old, (days_ago, days_ago))
    root = LakeRoot.of(data / "lake")
    assert delete_rows(root, tables.RATINGS, "rater_id = 'u0'") == 7 + 1
    forget_history(root, [tables.RATINGS])
    assert not old.exists()
    with pytest.raises(DataGone, match="erased or vacuumed since"):
        TrainerLake(root).read(pins)
    with pytest.raises(DataGone, match="files of gold/ratings that v1 was trained on are gone: erased"):
        diff(data, "ratings", "v1")


def test_a_cycle_that_comes_to_nothing_pins_nothing(tmp_path: Path) -> None:
    data = lake.fill(tmp_path / "data", 8)
    outcome = cycle(lake.settings(data, lake.tiny_base(tmp_path / "base")))
    assert "there are 12 labels in all" in outcome.reason
    assert list((data / "lake").rglob(f"{PINS_FOLDER}/*.parquet")) == []


def test_what_has_come_in_since_a_version_was_trained_is_told_whatever_the_log_has_forgotten(data: Path) -> None:
    for _ in range(2):
        summary, *changes = diff(data, "ratings", "v1", "--limit", "100")
        assert (summary["added"], summary["removed"], summary["changed"]) == (20, 0, 10)
        assert {c["key"] for c in changes if c["kind"] == "added"} == {f"rating-{n}" for n in range(120, 140)}
        assert summary["columns"] == {"label": 10}
        forget(data, tables.RATINGS)
    assert diff(data, "preferences", "v1")[0]["added"] == 0
    assert diff(data, "ratings", "v1", "v1")[0]["unchanged"] == 0


def test_a_side_that_can_not_be_read_says_what_can(data: Path) -> None:
    forget(data, tables.RATINGS)
    with pytest.raises(SettingsError, match=r"THUMBWHEEL_KEEP_LOG_MINUTES\); these versions can: \d.*takes a trained"):
        diff(data, "ratings", "1")
    with pytest.raises(SettingsError, match="x is no version: name a number of gold/ratings, or a trained version"):
        diff(data, "ratings", "x")
    with pytest.raises(SettingsError, match="no version learns from gold/scores; update cycles read gold/ratings"):
        diff(data, "scores", "v1")
    with pytest.raises(SettingsError, match="when v1 was trained there was no table gold/annotators"):
        diff(data, "annotators", "v1")
    with pytest.raises(UnknownVersion, match="there is no version v7"):
        diff(data, "ratings", "v7")


def test_the_trainer_pins_reads_and_writes_a_lake_in_a_store(store: LakeRoot) -> None:
    root = LakeRoot.of(store.at("trainer"), store.options)
    reader = TrainerLake(root)
    assert reader.count_labels(reader.pins()) == 0
    for table, rows in (
        (tables.RATINGS, [lake.rating(n) for n in range(4)]),
        (tables.PREFERENCES, [lake.preference(1)]),
        (tables.RESPONSES, [lake.response(n) for n in range(3)]),
    ):
        for row in rows:
            opened = open_table(root, table)
            opened.append(opened.arrow([dict.fromkeys(table.columns()) | row]), {})
    pins = reader.pins()
    reader.hold("cycle-1", pins)
    before = reader.read(pins)
    assert (len(before.ratings), len(before.pairs), len(before.prompts)) == (4, 1, 3)
    opened = open_table(root, tables.RATINGS)
    opened.append(opened.arrow([dict.fromkeys(tables.RATINGS.columns()) | lake.rating(9)]), {})
    opened.compact(1 << 20)
    assert opened.clear(keep=timedelta(0), now=datetime.now(UTC)) == 1
    assert (reader.read(pins), reader.count_labels(reader.pins())) == (before, 6)
    (answer, *_) = reader.unscored("reward-v1", limit=1)
    reader.append_scores([score(answer.response_id, answer.prompt_id)])
    assert len(reader.unscored("reward-v1", limit=9)) == 2
    reader.release("cycle-1", pins)
    assert opened.clear(keep=timedelta(0), now=datetime.now(UTC)) == 4
    with pytest.raises(DataGone, match="4 of the 4 files that were pinned of gold/ratings are gone"):
        reader.read(pins)


def score(response: str, prompt: str) -> ScoreRow:
    return ScoreRow(
        response_id=response, prompt_id=prompt, version="base", reward_model="reward-v1", head_scores=(0.5,),
        scored_at=lake.EPOCH,
    )  # fmt: skip


def test_the_trainer_finds_the_lake_where_the_streams_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(TrainerSettings(data=tmp_path).lake) == str(tmp_path / "lake")
    monkeypatch.setenv("THUMBWHEEL_LAKE", "s3://bucket/prefix/")
    monkeypatch.setenv("THUMBWHEEL_LAKE_OPTIONS", json.dumps({"AWS_REGION": "eu-central-1", "aws_secret": "hush"}))
    settings = TrainerSettings(data=tmp_path)
    assert settings.lake.at("gold/ratings") == "s3://bucket/prefix/gold/ratings"
    assert settings.lake.client_options() == {
        "aws_conditional_put": "etag",
        "aws_region": "eu-central-1",
        "aws_secret": "hush",
    }
    assert "hush" not in repr(settings)
    assert settings.registry == tmp_path / "registry"
