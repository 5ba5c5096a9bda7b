"""What decides on a cycle's version besides its gates: a person, a key, a budget, a disk; and where it goes then."""

import json
import resource
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from infra.cli.app import app as cli
from schemas.audit import Audit
from schemas.cycles import Cycle, CycleStatus, Stage, Trigger
from schemas.envelope import new_event
from schemas.errors import BudgetSpent, CorruptAdapter, IllegalTransition, SettingsError, UnknownVersion
from schemas.messages import Payload
from schemas.signatures import read_key
from schemas.versions import ModelVersion, VersionState, move
from serving.adapters.adapter_bank import read_adapter
from tests.integration import trainer_lake as lake
from trainer import app
from trainer.adapters import exports, signing
from trainer.adapters.events import MemoryEvents
from trainer.adapters.registry import Registry
from trainer.cycle import CycleRunner
from trainer.journal import Approval

PRICED: dict[str, Any] = {"price_per_hour": 3.6, "currency": "EUR"}


@dataclass
class World:
    """A data folder on which a cycle ended that waits for a person; signed, and with a price."""

    data: Path
    base: Path
    events: MemoryEvents

    def runner(self, **changes: Any) -> CycleRunner:
        key = {"signing_key_file": self.data.parent / "key"}
        given = lake.settings(self.data, self.base, approval="required", score_responses=0, **PRICED, **(key | changes))
        return CycleRunner(given, self.events, load_base=app.loader(given))

    def told(self, kind: type[Payload]) -> list[Any]:
        return [e.data for e in self.events.events if isinstance(e.data, kind)]

    @property
    def id(self) -> str:
        (folder,) = (self.data / "cycles").glob("c*")
        return folder.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("made")
    signing.make_key(root / "key")
    world = World(lake.fill(root / "data"), lake.tiny_base(root / "base"), MemoryEvents())
    world.runner().run(trigger=Trigger.SCHEDULE, why="the schedule 30 3 * * *")
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy of it."""
    shutil.copytree(made.data, tmp_path / "data")
    shutil.copy(made.data.parent / "key", tmp_path / "key")
    events = MemoryEvents()
    events.events = list(made.events.events)
    return World(tmp_path / "data", made.base, events)


def test_a_version_that_needs_an_approval_is_told_to_nobody(made: World) -> None:
    (outcome,) = made.runner().cycles.outcomes()
    assert (outcome.status, outcome.version) == (CycleStatus.AWAITING_APPROVAL, "v1")
    assert "thumbwheel cycles approve" in outcome.reason and not made.told(ModelVersion)
    assert made.told(Cycle)[-1].status is CycleStatus.AWAITING_APPROVAL


def test_what_began_a_cycle_is_in_its_events_its_outcome_and_its_record(made: World) -> None:
    started = made.told(Cycle)[0]
    assert (started.trigger, started.reason) == (Trigger.SCHEDULE, "from base: the schedule 30 3 * * *")
    runner = made.runner()
    assert runner.cycles.outcomes()[0].trigger is Trigger.SCHEDULE is runner.registry.record("v1").trigger


def test_what_a_cycle_costs_is_told_by_stage_and_in_money(made: World) -> None:
    """3.60 an hour is 0.001 a second."""
    (outcome,) = made.runner().cycles.outcomes()
    assert set(outcome.stages) == {stage.value for stage in Stage}
    assert outcome.money == pytest.approx(outcome.seconds / 1000) and outcome.currency == "EUR"
    assert sum(c.seconds for c in outcome.stages.values()) == pytest.approx(outcome.seconds, abs=0.01)
    policy = outcome.stages["policy"]
    assert policy.cpu_seconds is not None and policy.cpu_seconds > 0 and policy.trained_tokens > 0
    assert made.told(Cycle)[-1].cost.money == outcome.money


def test_an_approval_is_audited_first_and_then_registers_the_version(world: World) -> None:
    approvals = world.runner().closer.approvals
    approvals.decide(world.id, approved=True, actor="cli:ada", reason="read fifty answers")
    (audit,), (version,) = world.told(Audit), world.told(ModelVersion)
    assert (audit.action, audit.actor, audit.target) == ("version_approval", "cli:ada", "v1")
    assert (version.state, version.actor) == (VersionState.REGISTERED, "cli:ada")
    assert version.reason == "approved by cli:ada: read fifty answers"
    kinds = [type(e.data) for e in world.events.events[-3:]]
    assert kinds == [Audit, ModelVersion, Cycle] and world.told(Cycle)[-1].status is CycleStatus.FINISHED
    (outcome,) = world.runner().cycles.outcomes()
    assert (outcome.status, outcome.announced) == (CycleStatus.FINISHED, True)
    with pytest.raises(UnknownVersion, match=r"v1 does not wait for an approval; waiting: none"):
        approvals.decide("v1", approved=False, actor="cli:bob", reason="")


def test_a_declined_version_is_rejected(world: World) -> None:
    world.runner().closer.approvals.decide("v1", approved=False, actor="cli:ada", reason="rude")
    assert world.told(ModelVersion)[0].state is VersionState.REJECTED
    (outcome,) = world.runner().cycles.outcomes()
    assert (outcome.status, outcome.reason) == (CycleStatus.REFUSED, "declined by cli:ada: rude")


def test_what_nobody_decides_on_expires(world: World) -> None:
    runner = world.runner()
    ended = runner.cycles.outcomes()[0].ended_at
    approvals = runner.closer.approvals
    approvals._now = lambda: ended + timedelta(days=6.9)
    assert approvals.expire(7.0) == []
    approvals._now = lambda: ended + timedelta(days=7.1)
    assert approvals.expire(7.0) == ["v1"]
    assert world.told(ModelVersion)[0].reason == "declined: nobody approved it in 7 days"


def test_a_process_that_dies_after_a_decision_leaves_it_to_the_next_one(world: World) -> None:
    runner = world.runner()
    at = runner.cycles.outcomes()[0].ended_at
    decision = Approval(approved=True, actor="cli:ada", at=at)
    runner.registry.decide("v1", decision)
    with pytest.raises(IllegalTransition, match="does not wait for an approval"):
        runner.registry.decide("v1", decision)
    assert not world.told(ModelVersion)
    world.runner().recover()
    assert world.told(ModelVersion)[0].state is VersionState.REGISTERED
    assert world.runner().cycles.outcomes()[0].status is CycleStatus.FINISHED


def test_a_changed_file_of_a_signed_version_is_found_before_it_is_approved_or_served(world: World) -> None:
    file = world.data / "registry/v1/adapter_config.json"
    key = read_key(world.data.parent / "key")
    (event,) = world.runner().registry.awaiting()
    assert read_adapter(event.data, world.data / "registry", key).version == "v1"
    file.write_text(file.read_text().replace('"lora_alpha": 16', '"lora_alpha": 999'))
    with pytest.raises(CorruptAdapter, match=r"adapter_config\.json of version v1 is not the file that was signed"):
        world.runner().closer.approvals.decide("v1", approved=True, actor="cli:ada", reason="")
    with pytest.raises(CorruptAdapter, match=r"adapter_config\.json"):
        read_adapter(event.data, world.data / "registry", key)
    assert not world.told(Audit) and read_adapter(event.data, world.data / "registry").version == "v1"


def test_an_unsigned_version_is_no_parent_until_it_is_signed(world: World) -> None:
    runner = world.runner()
    runner.closer.approvals.decide("v1", approved=True, actor="cli:ada", reason="")
    live = move(world.told(ModelVersion)[0], VersionState.LIVE, actor="test", reason="")
    world.events.publish(new_event(live, source="test"))
    (world.data / "registry/v1/signature.json").unlink()
    outcome = world.runner().run()
    assert outcome.status is CycleStatus.FAILED and "version v1 is not signed" in outcome.reason
    world.runner().registry.sign("v1")
    assert world.runner().registry.verify("v1").version == "v1"


def test_an_erasure_of_sampled_answers_leaves_a_signed_version_whole(world: World) -> None:
    from trainer.adapters.registry import quote

    plain = Registry(world.data / "registry")
    quotes = {quote(s.prompt) for s in plain.record("v1").evaluation.samples}
    assert quotes and plain.forget_samples(quotes) > 0
    assert world.runner().registry.verify("v1").evaluation.samples == ()


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    signing.make_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="is there already"):
        signing.make_key(tmp_path / "key")


def test_a_month_that_is_used_up_begins_no_cycle(world: World) -> None:
    spent = world.runner().cycles.outcomes()[0].seconds
    with pytest.raises(BudgetSpent, match="THUMBWHEEL_MAX_MONTH_SECONDS"):
        world.runner(max_month_seconds=spent / 2).run()
    assert len(world.runner().cycles.ids()) == 1


def test_a_cycle_ends_where_it_passes_the_months_budget(world: World) -> None:
    before = world.runner().cycles.outcomes()[0]
    tokens = before.generated_tokens + before.trained_tokens
    outcome = world.runner(max_month_tokens=tokens + 10).run()
    assert outcome.status is CycleStatus.FAILED and "THUMBWHEEL_MAX_MONTH_TOKENS" in outcome.reason


def test_a_disk_that_is_full_at_the_registration_leaves_no_half_version(made: World, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(MemoryEvents):
        def offer(self, event: Any) -> None:
            if event.data.stage is Stage.REGISTER:
                resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limit[1]))
            super().offer(event)

    given = lake.settings(lake.fill(tmp_path / "data"), made.base)
    runner = CycleRunner(given, Full(), load_base=app.loader(given))
    try:
        outcome = runner.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert outcome.status is CycleStatus.FAILED and not outcome.conclusive
    assert "File too large" in outcome.reason and list(given.registry.iterdir()) == []


def test_a_record_that_cant_be_read_and_a_parent_of_another_base_fail_the_cycle(world: World) -> None:
    runner = world.runner()
    runner.closer.approvals.decide("v1", approved=True, actor="cli:ada", reason="")
    live = move(world.told(ModelVersion)[0], VersionState.LIVE, actor="test", reason="")
    world.events.publish(new_event(live, source="test"))
    other = world.runner(base_model_name="another").run()
    assert "version v1 is an adapter of random, and this trainer's base is another" in other.reason
    (world.data / "registry/v1/record.json").write_text("{")
    broken = world.runner(signing_key_file=None).run()
    assert broken.status is CycleStatus.FAILED and "the record of version v1" in broken.reason
    assert world.runner().registry.versions() == ["v1"]


def test_the_merged_model_gives_the_logits_of_base_and_adapter(made: World, tmp_path: Path) -> None:
    registry = made.runner().registry
    exports.merged(registry, "v1", tmp_path / "out", base=str(made.base))
    logits: dict[str, torch.Tensor] = {}
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")("User: tea please Assistant:", return_tensors="pt")
    with torch.no_grad():
        logits["merged"] = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(tokens["input_ids"]).logits
        base = AutoModelForCausalLM.from_pretrained(made.base)
        logits["base"] = base(tokens["input_ids"]).logits
        logits["adapted"] = PeftModel.from_pretrained(base, str(registry.folder("v1")))(tokens["input_ids"]).logits
    assert torch.allclose(logits["merged"], logits["adapted"], atol=1e-5)
    assert float((logits["merged"] - logits["base"]).abs().max()) > 1e-4
    text = (tmp_path / "out/thumbwheel.json").read_text()
    assert json.loads(text)["adapter_sha256"] == registry.record("v1").adapter_sha256
    assert json.loads(text)["evaluation"]["samples"] == []
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.to_dict()["base_model_relation"], card.data.to_dict()["library_name"]) == (
        "finetune",
        "transformers",
    )
    with pytest.raises(SettingsError, match="is there already"):
        exports.merged(registry, "v1", tmp_path / "out", base=str(made.base))


def test_the_model_card_is_one_that_the_hub_reads_and_holds_no_text_of_users(made: World) -> None:
    record = made.runner().registry.record("v1")
    text = (made.data / "registry/v1/README.md").read_text()
    card = ModelCard(text)
    (kl,) = [r.metric_value for r in card.data.eval_results or [] if r.metric_type == "kl"]
    assert kl == pytest.approx(record.evaluation.kl, abs=1e-4)
    assert card.data.to_dict()["base_model_relation"] == "adapter" and card.data.to_dict()["library_name"] == "peft"
    assert all(f"| {gate.name} | passed |" in text for gate in record.gates)
    told = [s for s in record.evaluation.samples if len(s.before.split()) > 1]  # a lone word may be one of the card's
    assert told and not any(s.before in text or s.prompt in text for s in told)


@pytest.mark.filterwarnings("default")  # MLflow's own, of other packages
def test_mlflow_gets_figures_configuration_and_files(
    made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    with pytest.raises(SettingsError, match="give the address of a tracking server"):
        exports.to_mlflow(made.runner().registry, "v1", f"file:{tmp_path}/refused")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    registry = made.runner().registry
    run_id = exports.to_mlflow(registry, "v1", f"file:{tmp_path}/runs")
    run = mlflow.MlflowClient(tracking_uri=f"file:{tmp_path}/runs").get_run(run_id)
    assert run.data.metrics["kl"] == pytest.approx(registry.record("v1").evaluation.kl)
    assert run.data.params["ppo.iterations"] == "2" and run.info.status == "FINISHED"


def test_a_repetition_says_what_is_not_as_it_was(world: World) -> None:
    found = app.compare(world.runner().settings, "v1")
    assert found.same and found.differences == ()
    file = world.data / "registry/v1/record.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"code_version": "older"}))
    settings = world.runner(signing_key_file=None).settings
    assert [d.split(":")[0] for d in app.compare(settings, "v1").differences] == ["code"]


def call(world: World, *arguments: str) -> Any:
    return CliRunner().invoke(cli, ["cycles", *arguments, "--data", str(world.data)])


def test_list_and_show_tell_trigger_status_version_and_cost(made: World) -> None:
    (row,) = [json.loads(line) for line in call(made, "list", "--json").stdout.splitlines()]
    assert (row["trigger"], row["status"], row["version"]) == ("schedule", "awaiting approval", "v1")
    listed = call(made, "list").stdout
    assert made.id in listed and "awaiting approval" in listed and "EUR" in listed
    shown = call(made, "show", "v1").stdout
    assert f"thumbwheel cycles approve {made.id}" in shown and "reward_model" in shown and "passed" in shown
    whole = json.loads(call(made, "show", made.id, "--json").stdout)
    assert whole["cycle_id"] == made.id and whole["gates"][0]["name"] == "finite"


def test_a_cycle_that_is_not_there_is_said_with_those_that_are(made: World) -> None:
    done = call(made, "show", "c-nothing")
    assert isinstance(done.exception, UnknownVersion) and made.id in str(done.exception)
    assert isinstance(call(made, "reproduce", "v9").exception, UnknownVersion)
    assert "say where to" in CliRunner().invoke(cli, ["cycles", "export", "v1"]).output
