"""Takes a version elsewhere: as one merged model, or as a run of MLflow. Nothing here changes the registry."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from schemas.errors import ModelError, SettingsError
from trainer.adapters.card import model_card
from trainer.adapters.files import sync_folder, sync_tree
from trainer.adapters.registry import Registry
from trainer.records import VersionRecord

LINEAGE_FILE = "thumbwheel.json"
EXPERIMENT = "thumbwheel"


def merged(registry: Registry, version: str, directory: Path, *, base: str) -> None:
    """Write base and adapter as one model: safetensors, tokenizer, card and the record; there whole or not at all.

    The weights keep the type that the base's files have. Raises `SettingsError` where there is something already,
    `ModelError` or `CorruptAdapter` where base and adapter don't go together, `OSError`.
    """
    record = registry.verify(version)
    if directory.exists():
        raise SettingsError(f"{directory} is there already: name a folder that is not")
    model, tokenizer = _merge(base, registry.folder(version))
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(_merged_card(record), encoding="utf-8")
        (temporary / LINEAGE_FILE).write_text(_without_samples(record), encoding="utf-8")
        sync_tree(temporary)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(directory.parent)


def _merge(base: str, adapter: Path) -> tuple[Any, Any]:
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True, **options)
        kind = model.dtype
        # Merged in fp32 and rounded once: in bf16 a small update would be lost in part.
        whole: Any = PeftModel.from_pretrained(model.to(torch.float32), str(adapter))
        return whole.merge_and_unload(safe_merge=True).to(kind), tokenizer
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the adapter in {adapter} can't be merged into {base}: {error}") from error


def _merged_card(record: VersionRecord) -> str:
    """The version's card, as that of a model of its own."""
    card = model_card(record).replace("base_model_relation: adapter\nlibrary_name: peft", _OF_ITS_OWN)
    before, _, after = card.partition("## How to load it")
    limits = after.partition("## Limits")[2]
    return f"{before}## How to load it\n\n{_LOADING}\n\n## Limits{limits}".replace(
        f"A LoRA adapter on {record.base_model.name}", f"{record.base_model.name} with a LoRA adapter merged in"
    )


_OF_ITS_OWN = "base_model_relation: finetune\nlibrary_name: transformers"
_LOADING = "With transformers, as any model: `AutoModelForCausalLM.from_pretrained(folder)`."


def to_mlflow(registry: Registry, version: str, uri: str) -> str:
    """Log a version as a run of MLflow (figures, configuration, gates, files); the run's id.

    Sampled answers are left out. Raises `SettingsError` where MLflow is not installed or can't be reached.
    """
    try:
        mlflow: Any = importlib.import_module("mlflow")
    except ModuleNotFoundError as error:
        raise SettingsError("MLflow is not installed: `pip install 'thumbwheel[mlflow]'`") from error
    record, folder = registry.verify(version), registry.folder(version)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
        return _log(client, experiment, record, folder)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise SettingsError(
            f"MLflow at {uri} took nothing: {str(error).splitlines()[0]}; give the address of a tracking server"
        ) from error


def _log(client: Any, experiment: str, record: VersionRecord, folder: Path) -> str:
    tags = {"mlflow.runName": record.version, "thumbwheel.cycle": record.cycle_id, "thumbwheel.parent": record.parent}
    run_id = str(client.create_run(experiment, tags=tags | {"thumbwheel.passed": str(record.passed)}).info.run_id)
    for name, value in _parameters(record).items():
        client.log_param(run_id, name, value)
    gates = {f"gate_{gate.name}": gate.value for gate in record.gates}
    for name, value in (record.metrics | gates).items():
        if value is not None and value - value == 0:
            client.log_metric(run_id, name, value)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name not in ("record.json", "event.json", "awaiting.json"):
            client.log_artifact(run_id, str(file))
    client.log_text(run_id, _without_samples(record), "record.json")
    client.set_terminated(run_id)
    return run_id


def _without_samples(record: VersionRecord) -> str:
    """The record as JSON, without sampled answers: it leaves the place where an erasure finds them."""
    evaluation = record.evaluation.model_copy(update={"samples": ()})
    return record.model_copy(update={"evaluation": evaluation}).model_dump_json(indent=2) + "\n"


def _parameters(record: VersionRecord) -> dict[str, str]:
    """The configuration, flat: `ppo.iterations` and so on."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                walk(f"{prefix}{name}.", part)
        else:
            flat[prefix.rstrip(".")] = str(value)[:500]

    walk("", json.loads(record.config.model_dump_json()))
    return flat | {"base_model": record.base_model.name, "code_version": record.code_version}
