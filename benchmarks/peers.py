"""Peers of the trainer in virtual environments of the benchmarks' own, and their runs in processes of their own."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def python_with(folder: Path, requirements: tuple[str, ...]) -> Path:
    """The Python of a virtual environment with these packages, made on first use (about 60 MB, half a minute).

    What the project has (torch, transformers, peft, accelerate) is the project's: one version on both sides.
    """
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if ready.is_file() and ready.read_text() == "\n".join(requirements):
        return python
    print(f"one-time set-up of {folder}: {', '.join(requirements)}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=False)
    if done.returncode:
        sys.exit(f"could not install {', '.join(requirements)} into {folder}: see pip's message above")
    ready.write_text("\n".join(requirements))
    return python


def measure(python: str, module: str, side: str, case: str) -> dict[str, float]:
    """Run one side of a comparison with one thread; the figures that it prints as the last line."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [python, "-m", module, side, case], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the benchmark's side {side!r} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
