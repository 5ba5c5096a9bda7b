"""Every Python snippet of the pages runs as a new user would run it, against the gateway itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.sdk_python.conftest import SDK
from tests.unit.sdk_python.test_real_gateway import Running, real

__all__ = ["real"]
ROOT = SDK.parent
PYTHON_PART = (ROOT / "docs" / "sdk.md").read_text().split("\n## In the browser", 1)[0]
PAGES = {"docs/sdk.md": PYTHON_PART, "sdk/python/README.md": (SDK / "python" / "README.md").read_text()}
SNIPPETS = [
    (page, code) for page, text in PAGES.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]


def outcome(code: str, running: Running, spool: Path) -> "subprocess.CompletedProcess[str]":
    """What the code prints, with a line of ours at its end that tells what became of its events."""
    code = code.replace("http://127.0.0.1:8000", running.url).replace("/tmp/myapp/thumbwheel", str(spool))
    code += "\nif 'tw' in globals(): print(tw.stats)\n"
    environment = {
        "PYTHONPATH": f"{SDK / 'python'}:{SDK / 'redaction'}",
        "THUMBWHEEL_URL": running.url,
        "THUMBWHEEL_API_KEY": running.key,
        "OPENAI_BASE_URL": f"{running.url}/v1",
        "OPENAI_API_KEY": running.key,
    }
    arguments = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_every_snippet_runs(number: int, real: Running, tmp_path: Path) -> None:
    page, code = SNIPPETS[number]
    if "over_kafka" in code:
        compile(code, page, "exec")  # it needs a broker: tests/integration/test_sdk_python.py goes this way
        return
    run = outcome(code, real, tmp_path / "spool")
    assert run.returncode == 0, f"{page}: {run.stderr}"
    assert run.stderr == ""
    if "Stats(" in run.stdout and "strict=True" not in code:
        assert "waiting=0, recorded=1, rejected=0, dropped=0, invalid=0" in run.stdout
    expected = {"AsyncThumbwheel": "finerecorded", "strict=True": "needs a non-empty text"}
    assert all(words in run.stdout for name, words in expected.items() if name in code)


def test_the_table_of_methods_is_complete() -> None:
    from thumbwheel_client import Thumbwheel

    public = {name for name in dir(Thumbwheel) if not name.startswith("_")} - {"over_kafka"}
    rows = [line for line in PYTHON_PART.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row.split("|")[1])}
    assert named == public
    assert "over_kafka" in PYTHON_PART
