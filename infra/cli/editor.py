"""The user's editor on a private file."""

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from schemas.errors import SettingsError


def edit(text: str, *, name: str) -> str:
    """What the user makes of `text`. The file is the user's alone, in a folder that is removed with all that is in it.

    Raises `SettingsError` where there is no editor, or where it fails.
    """
    command = _command()
    with tempfile.TemporaryDirectory(prefix="thumbwheel-") as folder:  # mode 0700: an editor's backups stay inside
        path = Path(folder) / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        try:
            done = subprocess.run([*command, str(path)], check=False)
        except OSError as error:
            raise SettingsError(f"the editor {command[0]!r} does not start: {error.strerror}; set EDITOR") from error
        if done.returncode != 0:
            raise SettingsError(f"the editor {command[0]!r} ended with {done.returncode}; nothing was sent")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SettingsError(f"what the editor saved is not UTF-8: {error}; nothing was sent") from error


def _command() -> list[str]:
    """VISUAL, else EDITOR, as words; else vi where there is one. No shell looks at it."""
    for variable in ("VISUAL", "EDITOR"):
        chosen = os.environ.get(variable, "").strip()
        if chosen:
            try:
                return shlex.split(chosen)
            except ValueError as error:
                raise SettingsError(f"{variable}={chosen!r} can't be split into words: {error}") from error
    found = shutil.which("vi")
    if found is None:
        raise SettingsError("no editor: set EDITOR (for example EDITOR='nano', or EDITOR='code --wait')")
    return [found]
