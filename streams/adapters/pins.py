"""What update cycles have pinned of a table, as upkeep sees it: see `schemas.storage`."""

from datetime import datetime

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler

from schemas.storage import PINS_FOLDER


class TableFolder:
    """A table's folder, in whatever store it lies. Each call looks again."""

    def __init__(self, uri: str, options: dict[str, str] | None) -> None:
        self._files = pafs.PyFileSystem(DeltaStorageHandler(uri, options))

    def files(self) -> set[str]:
        """What lies in the folder itself."""
        return {file.path for file in self._files.get_file_info(pafs.FileSelector(""))}

    def pinned(self) -> set[str]:
        """The data files that are pinned, relative to the table. Raises `OSError` for a list that can't be read."""
        return {path for file in self._lists() for path in self._paths(file.path)}

    def unpin(self, before: datetime) -> None:
        """Remove the lists that were written before that."""
        for file in self._lists():
            if file.mtime < before:
                self.remove(file.path)

    def remove(self, path: str) -> bool:
        """Remove a file; whether it was there."""
        try:
            self._files.delete_file(path)
        except FileNotFoundError:
            return False
        return True

    def _paths(self, file: str) -> list[str]:
        try:
            return pq.read_table(file, columns=["path"], filesystem=self._files)["path"].to_pylist()
        except FileNotFoundError:
            return []  # its cycle came to nothing, and has just removed it
        except (pa.ArrowException, KeyError) as error:
            raise OSError(f"{file} is no list of pinned files: {error}; remove it") from error

    def _lists(self) -> list[pafs.FileInfo]:
        found = self._files.get_file_info(pafs.FileSelector(PINS_FOLDER, allow_not_found=True))
        return [file for file in found if file.path.endswith(".parquet")]
