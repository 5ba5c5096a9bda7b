"""Features that answers were found to have, kept from cycle to cycle: a cycle reads only what none has read.

    <data>/features/<space>/<sha256>.safetensors    keys_G32 (SHA-256 of a group's tokens), sizes_G, features_NF
    <data>/features/epoch                           another one after the folder was cleared

A space stands for all that decides features beside the tokens: weights, code, libraries, processor, device, type of
numbers. A block's name is the SHA-256 of its bytes; one that doesn't match is removed, and its answers are read again.
What is not used for longest goes first. An erasure removes the folder (`thumbwheel erase`), and who had it open then
keeps nothing more: features of an erased text must not come back.

Shapes: G groups of answers read together, N answers, F features.
"""

import hashlib
import json
import logging
import os
import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from trainer.adapters.files import write_bytes_whole
from trainer.core.packing import Group

logger = logging.getLogger(__name__)

EPOCH_FILE = "epoch"
MAX_BLOCKS = 1024
"""Looking for keys opens each block of the space."""
MIN_BLOCK_ANSWERS = 8
"""However slow the reading is: a file costs more than the features of an answer do."""


def space_of(parts: Mapping[str, object]) -> str:
    """The name for what decides features beside the tokens."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class FeatureCache:
    """The features of one space. A block is written when `seconds` have passed since the last one and some answers
    are there for it, and at the end of `with`."""

    def __init__(
        self,
        folder: Path,
        *,
        space: str,
        max_bytes: int,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self.blocks = folder, folder / space
        self._max_bytes, self._seconds, self._clock = max_bytes, seconds, clock
        self._waiting: dict[str, Tensor] = {}
        self._written = clock()
        self._epoch = self._begin()
        self.kept = self.read = 0
        """Answers that were found here, and that had to be read."""

    def __enter__(self) -> "FeatureCache":
        return self

    def __exit__(self, *error: object) -> None:
        """What was read stays read, whatever ends the reading."""
        self.flush()

    def key(self, group: Group) -> str:
        """The name of a group: of its prompt's tokens and its answers', in their order."""
        digest = hashlib.sha256()
        for tokens in (group.prompt, *group.answers):
            digest.update(array("q", [len(tokens), *tokens]).tobytes())
        return digest.hexdigest()

    def find(self, groups: Sequence[Group]) -> dict[str, Tensor]:
        """By key, the features (answers, F) of those groups that are kept."""
        wanted = {self.key(group): len(group.answers) for group in groups}
        found: dict[str, Tensor] = {}
        for file in sorted(self.blocks.glob("*.safetensors")):
            held = _keys(file)
            if held is None or not wanted.keys().isdisjoint(held):
                found |= {k: v for k, v in _block(file).items() if len(v) == wanted.get(k)}
        n_found = sum(map(len, found.values()))
        self.kept += n_found
        logger.info("features found", extra={"answers": n_found, "of": sum(wanted.values())})
        return found

    def add(self, key: str, features_NF: Tensor) -> None:
        """Keep the features of a group that was read."""
        self.read += len(features_NF)
        self._waiting[key] = features_NF
        enough = sum(map(len, self._waiting.values())) >= MIN_BLOCK_ANSWERS
        if enough and self._clock() - self._written >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits. A disk that is full costs the cache and not the cycle."""
        waiting, self._waiting = self._waiting, {}
        self._written = self._clock()
        if not waiting or self._epoch is None or self._current() != self._epoch:
            return
        content = _packed(waiting)
        file = self.blocks / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            self.blocks.mkdir(exist_ok=True)
            write_bytes_whole(file, content)
            if self._current() != self._epoch:  # cleared in between
                file.unlink(missing_ok=True)
            self._evict()
        except OSError as error:
            logger.warning("features are not kept", extra={"file": str(file), "error": str(error)})

    def _begin(self) -> str | None:
        """The folder's epoch, written if there is none; None where nothing can be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._current() is None:
                write_bytes_whole(self._folder / EPOCH_FILE, uuid.uuid4().hex.encode())
        except OSError as error:
            logger.warning("features are not kept", extra={"folder": str(self._folder), "error": str(error)})
            return None
        return self._current()

    def _current(self) -> str | None:
        try:
            return (self._folder / EPOCH_FILE).read_text(encoding="utf-8")
        except OSError:
            return None

    def _evict(self) -> None:
        """Remove the blocks that were not used for longest, of whatever space, beyond the bounds."""
        newest_first = sorted(_stats(self._folder.glob("*/*.safetensors")), key=lambda s: (-s[1], s[0]))
        total = 0
        for n, (file, _, size) in enumerate(newest_first):
            total += size
            if total > self._max_bytes or n >= MAX_BLOCKS:
                file.unlink(missing_ok=True)


def _stats(files: Iterable[Path]) -> list[tuple[Path, int, int]]:
    """File, time of last use (ns) and bytes; without those that another process has just removed."""
    found: list[tuple[Path, int, int]] = []
    for file in files:
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue
        found.append((file, stat.st_mtime_ns, stat.st_size))
    return found


def _packed(groups: Mapping[str, Tensor]) -> bytes:
    return save(
        {
            "keys_G32": torch.tensor([list(bytes.fromhex(key)) for key in groups], dtype=torch.uint8),
            "sizes_G": torch.tensor([len(features) for features in groups.values()]),
            "features_NF": torch.cat(list(groups.values())).contiguous(),
        }
    )


def _keys(file: Path) -> set[str] | None:
    """The keys in a block; None where it can't be read."""
    try:
        with safe_open(str(file), framework="pt") as held:
            return {bytes(row).hex() for row in held.get_tensor("keys_G32").tolist()}
    except (OSError, SafetensorError):
        return None


def _block(file: Path) -> dict[str, Tensor]:
    """Features by key; a block whose bytes are not what its name says is removed and holds nothing."""
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.stem:
            logger.warning("damaged features are read again", extra={"file": str(file)})
            file.unlink(missing_ok=True)
            return {}
        os.utime(file)
    except OSError:
        return {}  # removed by another process
    held = load(content)
    parts = held["features_NF"].split(held["sizes_G"].tolist())
    return {bytes(row).hex(): part for row, part in zip(held["keys_G32"].tolist(), parts, strict=True)}
