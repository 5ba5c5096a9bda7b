"""Signs and checks versions' folders with the key of a file (see `schemas.signatures`)."""

import os
import secrets
from pathlib import Path

from schemas import signatures
from schemas.errors import SettingsError
from schemas.signatures import KEY_BYTES, SIGNATURE_FILE
from trainer.adapters.files import write_whole

CHANGING = frozenset({SIGNATURE_FILE, "event.json", "awaiting.json", "approval.json"})
"""Files that come and go in a version's life, and tell nothing that is served."""


class Signer:
    """One key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, version: str, folder: Path) -> None:
        """Write the folder's signature: of every file that is in it now."""
        names = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name not in CHANGING)
        files = {name: signatures.digest(name, (folder / name).read_bytes()) for name in names}
        signed = signatures.sign(version, files, self._key)
        write_whole(folder / SIGNATURE_FILE, signed.model_dump_json(indent=1) + "\n")

    def check(self, version: str, folder: Path) -> None:
        """Raise `CorruptAdapter` unless every file is the one that was signed."""
        signatures.check(version, self._key, None, lambda name: (folder / name).read_bytes())


def signer(file: Path | None) -> Signer | None:
    """The signer of a key's file, or None without one; raises `SettingsError`."""
    key = signatures.read_key(file)
    return None if key is None else Signer(key)


def make_key(file: Path) -> str:
    """A new key in a new file that only its owner can read; its id. Raises `SettingsError` where there is a file."""
    key = secrets.token_bytes(KEY_BYTES)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SettingsError(f"{file} is there already, and versions may be signed by it: name another") from error
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(key.hex() + "\n")
    return signatures.key_id(key)
