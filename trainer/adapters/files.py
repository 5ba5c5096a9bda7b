"""Files that are there whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Replace `file` by `text` in one step, on disk when this returns."""
    write_bytes_whole(file, text.encode())


def write_bytes_whole(file: Path, content: bytes) -> None:
    """Replace `file` by `content` in one step, on disk when this returns; where that fails, nothing has changed."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write a file of lines; for a folder that is forced to disk as a whole afterwards."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in lines)


def sync_tree(folder: Path) -> None:
    """Force every file of a folder, and the folder, to disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(*files: Path) -> str:
    """The SHA-256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as source:
            while block := source.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def remove_whole(folder: Path) -> bool:
    """Remove a folder that others may be writing to; whether there was one. Nobody sees a part of it."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return False
    sync_folder(folder.parent)
    shutil.rmtree(gone)
    return True
