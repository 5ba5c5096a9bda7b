"""The registry: one folder a version, there whole or not at all.

    <registry>/v3/  adapter_config.json  adapter_model.safetensors  value_head.safetensors    the adapter (peft)
                    reward.safetensors  judge.safetensors     what trained it, what judged it
                    reward_trunk.safetensors  what the reward model reads with, unless that is the base
                    record.json  README.md                    lineage and gates; model card
                    evidence.jsonl        each label and prompt that was used, by its id and without a text
                    pins.json             the tables' data files that were read, with their rows
                    signature.json        of all of these, where a key is set
                    event.json                                its version event, until the log has it
                    awaiting.json  approval.json              the event while a person has to approve; their answer

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
from safetensors import SafetensorError

from schemas.envelope import Event
from schemas.errors import CorruptAdapter, IllegalTransition, SettingsError, UnknownVersion
from schemas.ids import content_id
from schemas.versions import ModelVersion, VersionState
from trainer.adapters.card import model_card
from trainer.adapters.cycles import Lease
from trainer.adapters.files import sha256_of, sync_folder, sync_tree, write_whole
from trainer.adapters.pins import Pins
from trainer.adapters.signing import Signer
from trainer.core.evidence import Evidence
from trainer.core.gates import refusal
from trainer.journal import Approval
from trainer.records import VersionRecord, read_record

ADAPTER_FILE = "adapter_model.safetensors"
REWARD_FILE = "reward.safetensors"
SAFETY_FILE = "safety.safetensors"
"""Only where there were enough flags or labelled answers for a head."""
JUDGE_FILE = "judge.safetensors"
EVIDENCE_FILE = "evidence.jsonl"
PINS_FILE = "pins.json"
_EVENT_FILE = "event.json"
_AWAITING_FILE = "awaiting.json"
_APPROVAL_FILE = "approval.json"
_NUMBERED = re.compile(r"^v([1-9][0-9]*)$")


class Registry:
    """Versions below one folder. Writers hold the cycle lease, so that there is one at a time."""

    def __init__(self, root: Path, signer: Signer | None = None) -> None:
        self.root, self._signer = root, signer

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
        """The record, after comparing the adapter's bytes with it; with a key, all files with their signature.

        Raises `CorruptAdapter`.
        """
        record, folder = self.record(version), self.folder(version)
        if self._signer is not None:
            self._signer.check(version, folder)
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
        *,
        awaits: Callable[[VersionRecord], bool] = lambda record: False,
    ) -> tuple[VersionRecord, Event[ModelVersion]]:
        """Write a version: `fill` puts its files into a fresh folder and returns its record.

        When this returns the version is on disk, with its event in the outbox, or laid aside where it `awaits` a
        person's approval. Where it can't be written (a full disk) nothing of it is left; raises `OSError`.
        """
        temporary = self.root / f".{version}.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            record = fill(temporary)
            event = announce(record)
            (temporary / "record.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
            (temporary / "README.md").write_text(model_card(record), encoding="utf-8")
            if self._signer is not None:
                self._signer.sign(version, temporary)
            outbox = temporary / (_AWAITING_FILE if awaits(record) else _EVENT_FILE)
            outbox.write_text(_dump(event), encoding="utf-8")
            sync_tree(temporary)
            temporary.rename(self.root / version)
        except SafetensorError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(f"version {version} could not be written: {error}") from error
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(self.root)
        return record, event

    def sign(self, version: str) -> None:
        """Sign a version that was made without a key, or with another; raises `SettingsError` without a key."""
        if self._signer is None:
            raise SettingsError("no signing key is set: name its file in THUMBWHEEL_SIGNING_KEY_FILE")
        Registry(self.root).verify(version)
        self._signer.sign(version, self.folder(version))

    def awaiting(self) -> list[Event[ModelVersion]]:
        """Events of versions that passed their gates and wait for a person, oldest first."""
        return self._events(_AWAITING_FILE)

    def approval(self, version: str) -> Approval | None:
        """What was decided of a version, or None."""
        file = self.folder(version) / _APPROVAL_FILE
        return Approval.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None

    def decide(self, version: str, approval: Approval) -> None:
        """Keep what a person (or the time) decided: once. Raises `IllegalTransition` where it is decided already."""
        with Lease(self.root, "approvals"):
            if not (self.folder(version) / _AWAITING_FILE).is_file() or self.approval(version) is not None:
                raise IllegalTransition(f"version {version} does not wait for an approval")
            write_whole(self.folder(version) / _APPROVAL_FILE, approval.model_dump_json(indent=1) + "\n")

    def release(self, event: Event[ModelVersion]) -> None:
        """The event as it was decided goes into the outbox."""
        folder = self.folder(event.data.version)
        write_whole(folder / _EVENT_FILE, _dump(event))
        (folder / _AWAITING_FILE).unlink(missing_ok=True)

    def pending(self) -> list[Event[ModelVersion]]:
        """Version events that the log has not acknowledged, oldest first."""
        return self._events(_EVENT_FILE)

    def _events(self, name: str) -> list[Event[ModelVersion]]:
        files = [self.root / version / name for version in self.versions()]
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
