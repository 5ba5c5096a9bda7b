"""Who may import whom is checked by import-linter (`make imports`); here is what it can't see: what a program loads."""

import subprocess
import sys

import pytest

LOADED = "import sys; {imports}; print([m for m in {forbidden!r} if m in sys.modules])"


def loaded(imports: str, forbidden: list[str]) -> str:
    code = LOADED.format(imports=imports, forbidden=forbidden)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("imports", "forbidden"),
    [
        (
            "import schemas.tables, schemas.publish, schemas.logs, schemas.connection",
            ["pyarrow", "torch", "confluent_kafka"],
        ),
        ("import streams.ingest, streams.refine", ["torch", "transformers", "faust"]),
        ("import streams.agents", ["torch", "transformers"]),
        ("import serving.app, serving.controller", ["torch", "faust", "deltalake", "polars"]),
        ("import serving.adapters.engine_local", ["faust", "deltalake", "polars"]),
        ("import infra.cli", ["torch", "transformers", "faust", "deltalake", "matplotlib"]),
    ],
)
def test_a_program_loads_only_what_its_extra_installs(imports: str, forbidden: list[str]) -> None:
    assert loaded(imports, forbidden) == "[]"
