"""The registry: one folder a version, there whole or not at all.

    <registry>/v3/  adapter_config.json  adapter_model.safetensors  value_head.safetensors    the adapter (peft)
                    reward.safetensors  judge.safetensors     what trained it, what judged it
                    record.json  README.md                    lineage and gates; model card
                    evidence.jsonl        each label and prompt that was used, by its id and without a text
                    pins.json             the tables' data files that were read, with their rows
                    event.json                                its version event, until the log has it

A version is written to a hidden folder beside it, forced to disk and renamed. `event.json` is the outbox: it is removed
once the log has acknowledged the event, so a crash in between announces the version at the next start, by the same id.
"""

import json
import re
import shutil
from collections.abc import Callable, Set
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from schemas.envelope import Event
from schemas.errors import CorruptAdapter, UnknownVersion
from schemas.ids import content_id
from schemas.versions import ModelVersion, VersionState
from trainer.adapters.files import sha256_of, sync_folder, sync_tree, write_whole
from trainer.adapters.pins import Pins
from trainer.core.evidence import Evidence
from trainer.core.gates import refusal
from trainer.records import Interval, VersionRecord, read_record

ADAPTER_FILE = "adapter_model.safetensors"
REWARD_FILE = "reward.safetensors"
JUDGE_FILE = "judge.safetensors"
EVIDENCE_FILE = "evidence.jsonl"
PINS_FILE = "pins.json"
_EVENT_FILE = "event.json"
_NUMBERED = re.compile(r"^v([1-9][0-9]*)$")


class Registry:
    """Versions below one folder. Writers hold the cycle lease, so that there is one at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def versions(self) -> list[str]:
        """All versions that are there, in order of their numbers."""
        if not self.root.is_dir():
            return []
        numbers = [int(found[1]) for found in map(_NUMBERED.match, (p.name for p in self.root.iterdir())) if found]
        return [f"v{n}" for n in sorted(numbers)]

    def next_version(self) -> str:
        """The number after the highest. A rejected version keeps its number."""
        numbers = [int(name[1:]) for name in self.versions()]
        return f"v{max(numbers, default=0) + 1}"

    def folder(self, version: str) -> Path:
        """A version's folder; raises `UnknownVersion`."""
        path = self.root / version
        if not _NUMBERED.match(version) or not path.is_dir():
            known = ", ".join(self.versions()) or "none yet"
            raise UnknownVersion(f"there is no version {version} in {self.root}; there: {known}")
        return path

    def record(self, version: str) -> VersionRecord:
        """A version's record; raises `UnknownVersion` or `CorruptAdapter`."""
        folder = self.folder(version)
        try:
            return read_record(folder)
        except (OSError, ValidationError) as error:
            raise CorruptAdapter(f"the record of version {version} in {folder} can't be read: {error}") from error

    def verify(self, version: str) -> VersionRecord:
        """The record, after comparing the adapter's bytes with it; raises `CorruptAdapter`."""
        record, folder = self.record(version), self.folder(version)
        try:
            digest = sha256_of(folder / ADAPTER_FILE)
        except OSError as error:
            raise CorruptAdapter(f"the adapter of version {version} in {folder} can't be read: {error}") from error
        if digest != record.adapter_sha256:
            raise CorruptAdapter(
                f"the adapter of version {version} in {folder} has the SHA-256 {digest[:12]}..., its record says "
                f"{record.adapter_sha256[:12]}...; restore it from a copy, or roll back to another version"
            )
        return record

    def evidence(self, version: str) -> list[Evidence] | None:
        """What the version learned from, or None where its record is older than that; raises `CorruptAdapter`."""
        file = self.folder(version) / EVIDENCE_FILE
        expected = self.record(version).evidence_sha256
        if expected is None:
            return None
        if not file.is_file() or sha256_of(file) != expected:
            raise CorruptAdapter(f"{file} is not what the record of version {version} says; restore it from a copy")
        return [Evidence.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def pins(self, version: str) -> Pins:
        """What the version read of the tables; by number alone where its record is older; raises `CorruptAdapter`."""
        file, record = self.folder(version) / PINS_FILE, self.record(version)
        if record.pins_sha256 is None:
            return Pins.of(record.tables)
        if not file.is_file() or sha256_of(file) != record.pins_sha256:
            raise CorruptAdapter(f"{file} is not what the record of version {version} says; restore it from a copy")
        return Pins.read(file)

    def forget_samples(self, quotes: Set[str]) -> int:
        """Take the sampled answers to some prompts (hashes, see `quote`) out of all records; how many they were."""
        removed = 0
        for version in self.versions():
            record = self.record(version)
            kept = tuple(s for s in record.evaluation.samples if quote(s.prompt) not in quotes)
            if len(kept) < len(record.evaluation.samples):
                removed += len(record.evaluation.samples) - len(kept)
                rest = record.model_copy(update={"evaluation": record.evaluation.model_copy(update={"samples": kept})})
                write_whole(self.folder(version) / "record.json", rest.model_dump_json(indent=2) + "\n")
        return removed

    def by_cycle(self, cycle_id: str) -> VersionRecord | None:
        """The version that a cycle wrote, if it came so far."""
        for version in reversed(self.versions()):
            record = self.record(version)
            if record.cycle_id == cycle_id:
                return record
        return None

    def write(
        self,
        version: str,
        fill: Callable[[Path], VersionRecord],
        announce: Callable[[VersionRecord], Event[ModelVersion]],
    ) -> tuple[VersionRecord, Event[ModelVersion]]:
        """Write a version: `fill` puts its files into a fresh folder and returns its record.

        When this returns the version is on disk, with its event in the outbox.
        """
        temporary = self.root / f".{version}.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        record = fill(temporary)
        event = announce(record)
        (temporary / "record.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(model_card(record), encoding="utf-8")
        (temporary / _EVENT_FILE).write_text(_dump(event), encoding="utf-8")
        sync_tree(temporary)
        temporary.rename(self.root / version)
        sync_folder(self.root)
        return record, event

    def pending(self) -> list[Event[ModelVersion]]:
        """Version events that the log has not acknowledged, oldest first."""
        files = [self.root / version / _EVENT_FILE for version in self.versions()]
        return [_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()]

    def acknowledged(self, version: str) -> None:
        """The log has the version's event."""
        (self.root / version / _EVENT_FILE).unlink(missing_ok=True)


def quote(prompt: str) -> str:
    """The hash by which a sampled prompt is found without keeping it."""
    return content_id("quote", prompt)


def version_event(record: VersionRecord, *, source: str, id: str, time: datetime) -> Event[ModelVersion]:
    """The event that tells of a new version: registered, or rejected by its gates."""
    data = ModelVersion(
        version=record.version,
        state=VersionState.REGISTERED if record.passed else VersionState.REJECTED,
        parent=record.parent,
        base_model=record.base_model.name,
        adapter_path=record.version,
        adapter_sha256=record.adapter_sha256,
        cycle_id=record.cycle_id,
        gates=record.gates,
        kl=record.evaluation.kl if record.passed else None,
        win_rate=record.evaluation.win_rate_vs_parent.mean if record.passed else None,
        actor="trainer",
        reason=refusal(record.gates),
    )
    return Event(id, source, time, data)


def model_card(record: VersionRecord) -> str:
    """A short card in Hugging Face's form."""
    evaluation = record.evaluation
    gates = "\n".join(f"| {g.name} | {'passed' if g.passed else 'failed'} | {g.detail} |" for g in record.gates)
    remedies = "".join(f"\n- To change {g.name}: {g.remedy}." for g in record.gates if g.remedy)
    verdict = "passed its gates" if record.passed else "rejected"
    against_parent, against_base = _share(evaluation.win_rate_vs_parent), _share(evaluation.win_rate_vs_base)
    sources = ", ".join(f"{t} at version {v}" for t, v in record.tables.items() if v is not None)
    return f"""---
base_model: {record.base_model.name}
base_model_relation: adapter
library_name: peft
pipeline_tag: text-generation
tags: [thumbwheel, {record.config.method}, lora]
---

# {record.version} ({verdict})

A LoRA adapter on {record.base_model.name}, made by update cycle {record.cycle_id} from {record.parent}
on {record.created_at:%Y-%m-%d}, trained by {record.config.method.upper()}{_own_reward(record)}.

- Data: {sources or "none"}; content hash `{record.content_hash[:16]}`.
- Win rate by the judge on {evaluation.prompts} held-out prompts: {against_parent} against {record.parent},
  {against_base} against the base.
- KL to the base: {evaluation.kl:.2f} nats an answer.
- Mean length: {evaluation.length:.1f} tokens (before: {evaluation.parent_length:.1f}).
- Adapter SHA-256: `{record.adapter_sha256}`. Everything else is in `record.json`.

| gate | verdict | measured |
|---|---|---|
{gates}
{remedies}

Limits: it learned from the ratings of this product's users, and was judged by a model of other users' ratings, on
prompts of the same kind. Nothing is known of it elsewhere.
"""


def _own_reward(record: VersionRecord) -> str:
    extra = record.config.extra_reward
    return "" if extra is None else f" with the {extra.kind} {extra.name} in its reward"


def _share(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _dump(event: Event[ModelVersion]) -> str:
    whole = {
        "id": event.id,
        "source": event.source,
        "time": event.time.isoformat(),
        "data": event.data.model_dump(mode="json"),
    }
    return json.dumps(whole, indent=2) + "\n"


def _load(text: str) -> Event[ModelVersion]:
    whole = json.loads(text)
    data = ModelVersion.model_validate(whole["data"], strict=False)
    return Event(whole["id"], whole["source"], datetime.fromisoformat(whole["time"]), data)
