"""The peer of the broker benchmark: noida-db as a process. Not a dependency: whoever measures installs it."""

import stat
import sys
from importlib.resources import as_file, files
from pathlib import Path


def command(port: int, data: Path) -> list[str]:
    """Its command line; ends the program with a clear word where its package is missing."""
    try:
        with as_file(files("noida_db").joinpath("noida-db")) as found:
            binary = Path(found)
    except ModuleNotFoundError:
        sys.exit(
            "the benchmark `broker` measures against noida-db, which is not installed: pip install noida-db==0.2.3"
        )
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)  # the wheel does not mark it as executable
    here = ["--kafka-port", str(port), "--host", "127.0.0.1", "--data-dir", str(data)]
    return [str(binary), "start", "--only", "kafka", *here]
