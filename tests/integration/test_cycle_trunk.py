"""Cycles whose reward model has a trunk of its own: trained, kept by the next version, read by `score`, refused."""

import shutil
import threading
from pathlib import Path

import pytest
import torch

from schemas import tables
from schemas.cycles import CycleStatus
from schemas.envelope import new_event
from schemas.errors import CorruptAdapter
from schemas.versions import VersionState, move
from tests.integration import trainer_lake as lake
from tests.integration.test_cycle import World
from trainer import app, reward_trunks
from trainer.adapters.events import MemoryEvents
from trainer.adapters.policies import load_base
from trainer.adapters.registry import Registry
from trainer.adapters.trunks import fingerprint, load_trunks
from trainer.score_report import ScoreRequest
from trainer.settings import TrainerSettings

REWARD = {"heads": 4, "l2_grid": (0.01,), "trunk": "lora", "trunk_rank": 2, "trunk_labels": 32}


def settings(data: Path, base: Path, **reward: object) -> TrainerSettings:
    return lake.settings(data, base, reward=REWARD | reward)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lake.tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, base: Path) -> World:
    """A first version with a trunk of its own, live."""
    data = lake.fill(tmp_path_factory.mktemp("done") / "data")
    world = World(settings(data, base), MemoryEvents())
    assert world.run().version == "v1"
    world.events.publish(new_event(move(world.versions()[0], VersionState.LIVE, actor="t", reason=""), source="test"))
    return world


def copied(done: World, tmp_path: Path, **reward: object) -> World:
    data = tmp_path / "data"
    shutil.copytree(done.settings.data, data)
    events = MemoryEvents()
    events.events += done.events.events
    return World(settings(data, Path(done.settings.base_model), **reward), events)


def test_the_registry_holds_the_trunk_and_those_of_its_folds(done: World) -> None:
    info = done.record("v1").reward_model.trunk
    assert info is not None and (info.kind, info.trained_in, info.new_labels) == ("lora", "v1", 0)
    assert info.labels == done.record("v1").labels["train"]
    lm = load_base(done.settings.base_model, dtype="float32", device="cpu")
    parts = load_trunks(done.settings.registry / "v1" / info.file, lm, "lora", sha256=info.sha256)
    assert set(parts) == {"whole", "fold0", "fold1"}
    changed = [name for name, t in parts["whole"].items() if "lora_B" in name and float(t.abs().max()) > 0]
    assert len(changed) == 14  # seven matrices in each of two layers: B began at zero
    assert done.record("v1").metrics["reward_trunk_trained"] == 1.0


def test_few_new_labels_fit_heads_alone_and_many_train_the_trunk_anew(done: World, tmp_path: Path) -> None:
    first = done.record("v1").reward_model.trunk
    assert first is not None
    world = copied(done, tmp_path)
    lake.write(world.settings.data, tables.RATINGS, [lake.rating(n) for n in range(120, 140)])
    assert world.run().version == "v2"
    kept = world.record("v2").reward_model.trunk
    assert kept is not None and (kept.trained_in, kept.sha256, kept.labels) == ("v1", first.sha256, first.labels)
    assert 0 < kept.new_labels <= 20 and world.record("v2").metrics["reward_trunk_trained"] == 0.0
    heads = [(world.settings.registry / v / "reward.safetensors").read_bytes() for v in ("v1", "v2")]
    assert heads[0] != heads[1]

    due = World(settings(world.settings.data, Path(world.settings.base_model), refit_share=0.0), world.events)
    assert due.run().version == "v3"
    anew = due.record("v3").reward_model.trunk
    assert anew is not None and (anew.trained_in, anew.new_labels) == ("v3", 0) and anew.sha256 != first.sha256


def test_a_cycle_that_was_cut_off_goes_on_with_its_trunk_to_the_same_bytes(
    done: World, tmp_path: Path, base: Path
) -> None:
    class Gone(BaseException):
        pass

    world = World(settings(lake.fill(tmp_path / "data"), base), MemoryEvents())

    def stop() -> bool:
        if list(world.settings.cycles.glob("*/state/before.safetensors")):
            raise Gone
        return False

    with pytest.raises(Gone):
        world.run(stop)
    assert world.run().tries == 2
    for file in ("reward_trunk.safetensors", "reward.safetensors", "adapter_model.safetensors"):
        whole, torn = (w.settings.registry / "v1" / file for w in (done, world))
        assert whole.read_bytes() == torn.read_bytes(), file


def test_other_splits_or_another_rank_don_t_go_on_with_a_trunk(done: World) -> None:
    registry = Registry(done.settings.registry)
    config = done.record("v1").config
    assert reward_trunks.parent_trunk(registry, "v1", config) is not None
    for given in ({"holdout_share": 0.5}, {"judge_share": 0.2}, {"split_seed": 9}, {"reward": {"trunk": "full"}}):
        other = lake.settings(done.settings.data, Path(done.settings.base_model), **({"reward": REWARD} | given))
        changed = other.cycle_config(n_parameters=1, dtype="float32", device="cpu", threads=1, seed=1)
        assert reward_trunks.parent_trunk(registry, "v1", changed) is None, given


def test_production_is_scored_with_the_trunk(done: World) -> None:
    report = app.run_score(done.settings, ScoreRequest(limit=8, dry_run=True))
    record = done.record("v1")
    lm = load_base(done.settings.base_model, dtype="float32", device="cpu")
    plain = lm.encode_prompt([{"role": "user", "content": "tea please"}])
    trunk = reward_trunks.load(done.settings.registry / "v1", record, lm)
    tokens = torch.tensor([plain])
    positions = torch.arange(len(plain))[None]
    states = [m.states(tokens, positions_BT=positions, attend=torch.ones_like(tokens).bool())[-1] for m in (lm, trunk)]
    assert report.reward_model == "reward-v1" and report.total.answers == 8
    assert not torch.allclose(states[0], states[1])


def test_a_trunk_whose_bytes_were_changed_is_refused(done: World, tmp_path: Path) -> None:
    world = copied(done, tmp_path)
    file = world.settings.registry / "v1" / reward_trunks.TRUNK_FILE
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptAdapter, match="its record says"):
        app.run_score(world.settings, ScoreRequest(limit=8, dry_run=True))
    outcome = world.run()
    assert outcome.status is CycleStatus.FAILED and "reward_trunk.safetensors has the SHA-256" in outcome.reason


def test_a_trunk_of_another_base_is_refused(done: World) -> None:
    lm = load_base(done.settings.base_model, dtype="float32", device="cpu")
    with torch.no_grad():
        lm.model.get_decoder().norm.weight.mul_(1.5)  # the same shapes, another model
    with pytest.raises(CorruptAdapter, match="of another base"):
        reward_trunks.load(done.settings.registry / "v1", done.record("v1"), lm)


def test_the_fingerprint_is_the_base_s_with_and_without_a_policy(done: World) -> None:
    from trainer.adapters.policies import LoraSettings, attach_policy

    plain = load_base(done.settings.base_model, dtype="float32", device="cpu")
    carrying = load_base(done.settings.base_model, dtype="float32", device="cpu")
    attach_policy(carrying, LoraSettings(top_share=1.0))
    half = load_base(done.settings.base_model, dtype="bfloat16", device="cpu")
    assert fingerprint(plain) == fingerprint(carrying) == fingerprint(half)


def test_the_reward_model_alone_is_reported_with_a_trunk(done: World) -> None:
    report = app.run_reward_only(done.settings, stop=threading.Event())
    assert report.trunk == "lora" and "trunk: lora" in report.table()
    assert report.pair_accuracy is not None and report.pair_accuracy.mean == 1.0
    assert report.cross_validation is not None and report.cross_validation.accuracy.mean == 1.0
