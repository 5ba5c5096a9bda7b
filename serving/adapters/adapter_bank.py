"""LoRA adapters of one base in memory, by version; switching between them copies nothing.

Reading and checking an adapter's files (`read_adapter`) may happen on any thread; everything that touches the
model happens on the thread that decodes, between two steps.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.utils.save_and_load import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from schemas import signatures
from schemas.errors import CorruptAdapter, ModelError
from schemas.versions import BASE_VERSION, ModelVersion
from serving.core.batching import evictable
from serving.core.errors import VersionNotLoaded

logger = logging.getLogger(__name__)
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as read from disk, its bytes checked against its registration."""

    version: str
    config: PeftConfig
    weights: dict[str, Tensor]


def read_adapter(event: ModelVersion, registry: Path, key: bytes | None = None) -> AdapterFiles:
    """Read and check a version's adapter, with a key its signature too; raises `CorruptAdapter` or `ModelError`."""
    if event.adapter_path is None or event.adapter_sha256 is None:
        raise ModelError(f"version {event.version} was registered without an adapter; register it again with one")
    folder = registry / event.adapter_path  # an absolute path replaces the registry
    try:
        blob = (folder / WEIGHTS_FILE).read_bytes()
        digest = hashlib.sha256(blob).hexdigest()
        if digest != event.adapter_sha256:
            raise CorruptAdapter(
                f"the adapter of version {event.version} in {folder} has the SHA-256 {digest[:12]}..., registered was"
                f" {event.adapter_sha256[:12]}...; copy it again from where it was trained, or roll back"
            )
        if key is not None:
            held = {WEIGHTS_FILE: blob}
            signed = (WEIGHTS_FILE, CONFIG_FILE)
            signatures.check(event.version, key, signed, lambda name: held.get(name) or (folder / name).read_bytes())
        # The very bytes that were hashed are parsed: the file can't change in between.
        return AdapterFiles(event.version, PeftConfig.from_pretrained(str(folder)), load(blob))
    except (OSError, ValueError, SafetensorError, TypeError, KeyError) as error:
        raise ModelError(f"can't read the adapter of version {event.version} in {folder}: {error}") from error


class AdapterBank:
    """The adapters inside one model. Not thread-safe: it belongs to the decoding thread."""

    def __init__(self, model: Any, *, dtype: torch.dtype, device: torch.device) -> None:
        self.model = model
        self._dtype = dtype
        self._device = device
        self._peft: PeftModel | None = None
        self._names: dict[str, str] = {}  # version -> name inside peft, least recently used first
        self._count = 0
        self._active: str | None = None

    def loaded(self) -> tuple[str, ...]:
        """The versions with an adapter in memory, the least recently used first."""
        return tuple(self._names)

    def add(self, files: AdapterFiles) -> None:
        """Put an adapter into the model; raises `CorruptAdapter` where it doesn't fit, and leaves nothing behind."""
        if files.version in self._names:
            return
        # peft takes no dots in names, and an evicted name could still be around: so a number, never used twice.
        self._count += 1
        name = f"n{self._count}"
        files.config.inference_mode = True
        self._active = None
        try:
            self._inject(name, files)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            self._discard(name)
            raise CorruptAdapter(
                f"the adapter of version {files.version} does not fit the base model: {error}"
            ) from error
        self._names[files.version] = name

    def activate(self, version: str) -> None:
        """Make the next forward passes those of `version`; raises `VersionNotLoaded`."""
        if version != BASE_VERSION and version not in self._names:
            raise VersionNotLoaded(f"version {version} is not in memory (any more); try again")
        if version in self._names:
            self._names[version] = self._names.pop(version)  # now the most recently used
        if version == self._active:
            return
        if self._peft is not None:
            self._switch(self._peft, self._names.get(version))
        self._active = version

    def evict(self, *, in_use: frozenset[str], keep: frozenset[str], max_adapters: int) -> None:
        """Drop adapters that nothing uses, the least recently used first, down to `max_adapters`."""
        for version in evictable(self.loaded(), in_use=in_use, keep=keep, max_adapters=max_adapters):
            self._discard(self._names.pop(version))
            logger.info("adapter dropped from memory", extra={"version": version})

    @staticmethod
    def _switch(peft: PeftModel, name: str | None) -> None:
        tuner: Any = peft.base_model
        if name is None:
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            peft.set_adapter(name, inference_mode=True)

    def _inject(self, name: str, files: AdapterFiles) -> None:
        if self._peft is None:
            self._peft = PeftModel(self.model, files.config, adapter_name=name, autocast_adapter_dtype=False)
        else:
            self._peft.add_adapter(name, files.config, autocast_adapter_dtype=False)
        # The base's own precision: mixed ones would cast every layer's input on every step.
        weights = {key: value.to(self._device, self._dtype) for key, value in files.weights.items()}
        result = set_peft_model_state_dict(self._peft, weights, adapter_name=name)
        missing = [key for key in result.missing_keys if f".{name}." in key]
        if missing or result.unexpected_keys:
            raise ValueError(f"missing {missing[:2]}, unexpected {list(result.unexpected_keys)[:2]}")
        self._peft.eval()
        self._peft.requires_grad_(False)

    def _discard(self, name: str) -> None:
        self._active = None
        if self._peft is not None and name in self._peft.peft_config:
            self._peft.delete_adapter(name)
