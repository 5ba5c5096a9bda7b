"""What a cycle ran on: code, libraries, machine, and the bytes of the base model."""

import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from trainer.adapters.files import sha256_of
from trainer.journal import BaseModelInfo, Environment


def environment() -> Environment:
    """Versions and machine."""
    return Environment(
        python=platform.python_version(),
        torch=version("torch"),
        transformers=version("transformers"),
        peft=version("peft"),
        platform=platform.platform(),
        processor=_processor(),
    )


def process_id() -> int:
    return os.getpid()


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def device_peak_bytes(device: str) -> int:
    """The most memory that torch has held on a GPU since this process began; 0 on the CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.startswith("cuda") else 0


def threads() -> int:
    """Threads that torch computes with; another number gives other roundings."""
    return torch.get_num_threads()


def code_version(root: Path | None = None) -> str:
    """The commit that is checked out, or the package's version where there is no repository."""
    git = (root or Path(__file__).parents[2]) / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        loose = git / name
        if loose.is_file():
            return loose.read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next(line.split()[0] for line in packed if line.endswith(f" {name}"))
    except (OSError, StopIteration):
        return _package_version()


def base_model_info(name: str, path: str) -> BaseModelInfo:
    """The base's name, where it is, and the hash of its weights where they are local."""
    folder = Path(path)
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return BaseModelInfo(name=name, path=path, sha256=sha256_of(*weights) if weights else None)


def _package_version() -> str:
    try:
        return f"thumbwheel {version('thumbwheel')}"
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
