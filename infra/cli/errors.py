"""An error as one line that says what to do."""

from pathlib import Path

from schemas.errors import ThumbwheelError


def describe(error: BaseException) -> str:
    """The line after "error: "."""
    if isinstance(error, ThumbwheelError):
        return _one_line(str(error))
    if isinstance(error, ModuleNotFoundError):
        if error.name is None:  # a package's own check of what it needs
            return f"{_one_line(str(error))}; run `make setup`"
        return f"the package {error.name} is not installed; run `make setup`"
    if isinstance(error, OSError):
        return _os_error(error)
    if type(error).__name__ == "KafkaException":
        return f"the broker refused: {_kafka_text(error)}; see `thumbwheel doctor`"
    return f"{type(error).__name__}: {_one_line(str(error))}; --debug shows where, please report it"


def _os_error(error: OSError) -> str:
    what = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    advice = {
        FileNotFoundError: "check the path",
        PermissionError: "check who may read and write there",
        IsADirectoryError: "name a file, not a folder",
        NotADirectoryError: "name a folder, not a file",
    }.get(type(error), "`thumbwheel doctor` checks disk, ports and broker")
    return _one_line(f"{where}{what}; {advice}")


def _kafka_text(error: BaseException) -> str:
    first = error.args[0] if error.args else error
    text = getattr(first, "str", None)
    return _one_line(str(text()) if callable(text) else str(first))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def shown(path: Path) -> str:
    """A path as a user would write it: relative to where they stand, if it is below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
