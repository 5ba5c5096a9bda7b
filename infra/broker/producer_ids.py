"""Producer ids, never given twice: blocks are taken on disk before the first of them is given."""

from pathlib import Path

from infra.broker.disk import DISK, replace

BLOCK = 1000


class ProducerIds:
    """Counts up; a crash skips at most the rest of a block."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "producer-ids"
        self._next = self._taken = int(self._path.read_text()) if self._path.exists() else 0

    def take(self) -> int:
        """A new id."""
        if self._next == self._taken:
            replace(self._path, str(self._taken + BLOCK).encode(), DISK)
            self._taken += BLOCK
        self._next += 1
        return self._next - 1
