"""What a running cycle has finished, so that another process can go on where this one is killed.

    <cycle>/state/  features.safetensors  fitted  before  ppo  trained  evaluation    each there whole or not at all
                    spent.json            what each stage has used, so that no budget begins again

A result that can't be written (a full disk) is left out with a warning: the cycle goes on, and a process that has to
resume it does that part again. The folder is removed with the cycle's outcome: it holds answers.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar, cast

from safetensors import SafetensorError

from schemas.cycles import Stage
from trainer.adapters.files import write_bytes_whole, write_whole
from trainer.adapters.trees import from_file, to_bytes
from trainer.core.budget import Spent

logger = logging.getLogger(__name__)

T = TypeVar("T")
Usage = Callable[[], Mapping[Stage, Spent]]


class Checkpoints:
    """One cycle's finished parts. Without a folder nothing is kept: for repeating a cycle."""

    def __init__(
        self,
        folder: Path | None,
        *,
        seconds: float = 0.0,
        usage: Usage = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._seconds, self._usage, self._clock = folder, seconds, usage, clock
        self._written = float("-inf")
        self.live: dict[str, object] = {}
        """Parts of values that can't be kept, by name: a function of the user's, which each process loads itself."""

    def result(self, name: str, make: Callable[[], T]) -> T:
        """What was kept under this name, or what `make` makes, which is kept."""
        found = cast("T | None", self.load(name))
        if found is None:
            found = make()
            self.save(name, found)
        return found

    def load(self, name: str) -> object | None:
        """What was kept under this name; None where there is nothing that can be read."""
        file = self._file(name)
        if file is None or not file.is_file():
            return None
        try:
            found = from_file(str(file), self.live)
        except (OSError, ValueError, SafetensorError, ImportError) as error:
            logger.warning("a part of the cycle is done again", extra={"file": str(file), "error": str(error)})
            return None
        logger.info("taken up where it was left", extra={"part": name})
        return found

    def save(self, name: str, value: object) -> bool:
        """Keep a value; False where it could not be written, and nothing of it is left then."""
        file = self._file(name)
        if file is None or self._folder is None:
            return False
        try:
            self._folder.mkdir(exist_ok=True)
            write_bytes_whole(file, to_bytes(value, self.live))
            used = {stage.value: asdict(spent) for stage, spent in self._usage().items()}
            write_whole(self._folder / "spent.json", json.dumps(used) + "\n")
        except OSError as error:
            logger.warning("the cycle goes on without a checkpoint", extra={"file": str(file), "error": str(error)})
            return False
        self._written = self._clock()
        return True

    def save_now_and_then(self, name: str, value: object) -> None:
        """Keep a value that is soon replaced by the next one, at most once in the seconds that were set."""
        if self._clock() - self._written >= self._seconds:
            self.save(name, value)

    def forget(self, name: str) -> None:
        """Drop what is not needed any more, because what it led to is kept."""
        file = self._file(name)
        if file is not None:
            file.unlink(missing_ok=True)

    def spent(self) -> dict[Stage, Spent]:
        """What the stages had used when something was last kept."""
        file = None if self._folder is None else self._folder / "spent.json"
        if file is None or not file.is_file():
            return {}
        return {Stage(name): Spent(**used) for name, used in json.loads(file.read_text(encoding="utf-8")).items()}

    def discard(self) -> None:
        """The cycle has ended."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{name}.safetensors"
