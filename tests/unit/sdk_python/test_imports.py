"""The SDK stands alone: no server code, and nothing heavy until it is asked for."""

import ast
import subprocess
import sys

from tests.unit.sdk_python.conftest import SDK

PACKAGE = SDK / "python" / "thumbwheel_client"
ALLOWED = {"httpx", "thumbwheel_client", "confluent_kafka", "thumbwheel_redaction"} | set(sys.stdlib_module_names)


def test_it_imports_its_own_modules_the_standard_library_and_httpx() -> None:
    named: set[str] = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named.add((node.module or "").split(".")[0])
    assert named <= ALLOWED
    assert "httpx" in named


def test_importing_it_loads_no_extra_and_starts_nothing() -> None:
    code = (
        f"import sys, threading; sys.path.insert(0, {str(SDK / 'python')!r}); import thumbwheel_client; "
        "heavy = {'openai', 'confluent_kafka', 'opentelemetry', 'thumbwheel_redaction', 'pydantic', 'schemas'}; "
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == "[] 1"
