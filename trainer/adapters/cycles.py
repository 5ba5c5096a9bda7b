"""The cycles' folder: who may run one, what each did, and how it ended.

<cycles>/lease                      locked while a cycle runs; says who holds it
<cycles>/held                       why a cycle that is due does not begin, while that is so
<cycles>/<cycle id>/cycle.json      written first: when it began, from what
                    config.json     the configuration
                    metrics.jsonl   one line a PPO iteration
                    reward_report.json
                    pins.json           the tables' files that it reads
                    labels.parquet      ids of the labels that counted: what comes later is new
                    state/              what is finished, while it runs (see trainer/adapters/checkpoints.py)
                    outcome.json    written last: how it ended; a cycle without it was cut off
"""

import fcntl
import json
import os
import socket
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel

from schemas.cycles import CycleStatus
from schemas.errors import LeaseHeld
from trainer.adapters.files import write_whole
from trainer.journal import CycleStart, Outcome


class Lease:
    """One update cycle at a time on a data folder: a lock of the operating system, gone with its process.

    What the file says is for people only. A dead holder's text may stay in it: nobody has to remove the file, and no
    clock or id of a process decides. On a network file system the lock is as good as that system's `flock`.
    """

    def __init__(self, folder: Path, name: str = "lease") -> None:
        self._file = folder / name
        self._handle: int | None = None

    def __enter__(self) -> Self:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise LeaseHeld(
                f"another update cycle is running on {self._file.parent}: {self._holder()}; "
                f"wait until it is done, or stop it"
            ) from error
        self._handle = handle
        text = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _holder(self) -> str:
        try:
            return self._file.read_text() or "a process that has just begun"
        except OSError:
            return "an unknown process"


class CycleFolder:
    """One cycle's files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, start: CycleStart, pins: str) -> None:
        """The files that it reads, then that it has begun."""
        self.path.mkdir(parents=True)
        write_whole(self.pins, pins)
        self.again(start)

    def again(self, start: CycleStart) -> None:
        """The same with one more try."""
        self._write("cycle.json", start)

    @property
    def pins(self) -> Path:
        return self.path / "pins.json"

    @property
    def labels(self) -> Path:
        return self.path / "labels.parquet"

    @property
    def state(self) -> Path:
        return self.path / "state"

    def config(self, config: BaseModel) -> None:
        self._write("config.json", config)

    def step(self, figures: Mapping[str, float | int | str]) -> None:
        """One more line of metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(dict(figures)) + "\n")

    def keep_steps(self, n: int) -> None:
        """Leave the first `n` lines of metrics: what comes after the point that a cycle resumes at is done again."""
        file = self.path / "metrics.jsonl"
        if file.is_file():
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)[:n]
            write_whole(file, "".join(lines))

    def read_config(self) -> str | None:
        """`config.json` as it was written, or None where the cycle did not come so far."""
        file = self.path / "config.json"
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def reward_report(self, report: Mapping[str, object]) -> None:
        write_whole(self.path / "reward_report.json", json.dumps(dict(report), indent=2) + "\n")

    def end(self, outcome: Outcome) -> None:
        self._write("outcome.json", outcome)

    def start(self) -> CycleStart | None:
        """None where the process died before it had written it."""
        file = self.path / "cycle.json"
        return CycleStart.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None

    def outcome(self) -> Outcome | None:
        """None while the cycle runs, and where it was cut off."""
        file = self.path / "outcome.json"
        return Outcome.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None

    def _write(self, name: str, model: BaseModel) -> None:
        write_whole(self.path / name, model.model_dump_json(indent=2) + "\n")


class Cycles:
    """All cycles of a data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def lease(self) -> Lease:
        """Held by whoever runs a cycle: `with cycles.lease(): ...`; raises `LeaseHeld`."""
        return Lease(self.root)

    def folder(self, cycle_id: str) -> CycleFolder:
        return CycleFolder(self.root / cycle_id)

    def ids(self) -> list[str]:
        """Every cycle that has begun, oldest first (ids are ordered by time)."""
        return sorted(p.parent.name for p in self.root.glob("*/cycle.json"))

    def cut_off(self) -> list[CycleStart]:
        """Cycles without an outcome. Under the lease these are the ones whose process died."""
        starts = [self.folder(i).start() for i in self.ids() if self.folder(i).outcome() is None]
        return [s for s in starts if s is not None]

    def unannounced(self) -> list[Outcome]:
        """Outcomes that the log has not acknowledged."""
        return [outcome for outcome in self.outcomes() if not outcome.announced]

    def outcomes(self) -> list[Outcome]:
        """Of all cycles that ended."""
        outcomes = [self.folder(i).outcome() for i in self.ids()]
        return [o for o in outcomes if o is not None]

    def labels_seen(self) -> int:
        """How many labels the last cycle pinned, whatever came of it; 0 before the first.

        A cycle that was stopped or cut off has not looked at them and does not count.
        """
        outcomes = [o for o in self.outcomes() if o.conclusive]
        return max(outcomes, key=lambda o: o.ended_at).labels if outcomes else 0

    def hold(self, reason: str) -> None:
        """Say why a cycle that is due does not begin; an empty reason takes that back."""
        file = self.root / "held"
        if reason:
            self.root.mkdir(parents=True, exist_ok=True)
            write_whole(file, reason + "\n")
        else:
            file.unlink(missing_ok=True)

    def held(self) -> str:
        """Why a cycle that is due does not begin, or nothing."""
        file = self.root / "held"
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""

    def last_conclusive(self) -> Outcome | None:
        """The end of the last cycle that looked at its labels; None before the first."""
        return max((o for o in self.outcomes() if o.conclusive), key=lambda o: o.ended_at, default=None)

    def failures(self) -> list[Outcome]:
        """The cycles, newest first, that failed in a row for a reason outside of them since one did not."""
        found: list[Outcome] = []
        for outcome in sorted(self.outcomes(), key=lambda o: o.ended_at, reverse=True):
            if outcome.stopped:
                continue
            if outcome.status is not CycleStatus.FAILED or outcome.conclusive:
                break
            found.append(outcome)
        return found

    def began(self) -> datetime | None:
        """When the last cycle began."""
        starts = [start for start in (self.folder(i).start() for i in self.ids()[-1:]) if start is not None]
        return starts[0].started_at if starts else None

    def count(self, statuses: Collection[CycleStatus]) -> int:
        """How many cycles ended so."""
        return sum(outcome.status in statuses for outcome in self.outcomes())
