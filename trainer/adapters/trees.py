"""Values of the trainer's own types as a tree of JSON and tensors, and back: exact, and without pickle.

Dataclasses, pydantic models and plain classes of the trainer are kept field by field under their names; of tuples,
lists, mappings, enums, numbers and texts each comes back as what it was. Reading makes no class of another program.
"""

import dataclasses
import enum
import importlib
import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import load, save

PACKAGE = "trainer."
_NOTHING: Mapping[str, object] = {}
_PLAIN = (bool, int, float, str, type(None))


def to_bytes(value: object, live: Mapping[str, object] = _NOTHING) -> bytes:
    """A safetensors file whose metadata hold the tree; raises `TypeError` for a value of another kind.

    Of `live` objects (a function of the user's, say) the name alone is kept; `from_file` is given them again.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _encoded(value, tensors, live)
    return save(tensors, metadata={"tree": json.dumps(tree)})


def from_bytes(data: bytes, live: Mapping[str, object] = _NOTHING) -> Any:
    """The value of `to_bytes`; raises `ValueError`."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return _decoded(json.loads(header["__metadata__"]["tree"]), load(data).__getitem__, live)


def from_file(file: str, live: Mapping[str, object] = _NOTHING) -> Any:
    """The value again, its tensors on the CPU; raises `OSError` or `ValueError`."""
    with safe_open(file, framework="pt") as held:
        metadata = held.metadata() or {}
        if "tree" not in metadata:
            raise ValueError(f"{file} holds no tree of values")
        return _decoded(json.loads(metadata["tree"]), held.get_tensor, live)


def _encoded(value: Any, tensors: dict[str, torch.Tensor], live: Mapping[str, object]) -> Any:
    known = _live_name(value, live)
    if known is not None:
        return {"live": known}
    if isinstance(value, enum.Enum):
        return {"enum": _name(type(value)), "value": value.value}
    if type(value) in _PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if type(value) in (tuple, list):
        return {type(value).__name__: [_encoded(part, tensors, live) for part in value]}
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {"map": [[_encoded(key, tensors, live), _encoded(part, tensors, live)] for key, part in pairs]}
    name = _name(type(value))
    return {"class": name, "fields": {key: _encoded(part, tensors, live) for key, part in _fields(value).items()}}


def _live_name(value: object, live: Mapping[str, object]) -> str | None:
    """Two looks at one method are equal and not the same, so `==`; tensors, which compare piece by piece, can't be."""
    return next((name for name, known in live.items() if value == known), None) if callable(value) else None


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(vars(value))


def _name(kind: type) -> str:
    if not kind.__module__.startswith(PACKAGE) or issubclass(kind, torch.nn.Module):
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} can't be kept between processes")
    return f"{kind.__module__}:{kind.__qualname__}"


def _decoded(tree: Any, tensor: Any, live: Mapping[str, object]) -> Any:
    if not isinstance(tree, dict):
        return tree
    node = cast("dict[str, Any]", tree)
    if "live" in node:
        if node["live"] not in live:
            raise ValueError(f"{node['live']} is not there any more")
        return live[node["live"]]
    if "tensor" in node:
        return tensor(node["tensor"])
    if "tuple" in node:
        return tuple(_decoded(part, tensor, live) for part in node["tuple"])
    if "list" in node:
        return [_decoded(part, tensor, live) for part in node["list"]]
    if "map" in node:
        return {_decoded(key, tensor, live): _decoded(part, tensor, live) for key, part in node["map"]}
    if "enum" in node:
        return _class(node["enum"])(node["value"])
    return _made(_class(node["class"]), {name: _decoded(part, tensor, live) for name, part in node["fields"].items()})


def _class(name: str) -> Any:
    module, _, qualname = name.partition(":")
    if not module.startswith(PACKAGE):
        raise ValueError(f"{name} is no class of the trainer")
    found = getattr(importlib.import_module(module), qualname, None)
    if not isinstance(found, type) or found.__module__ != module:
        raise ValueError(f"there is no class {name} any more")
    return found


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    if issubclass(kind, BaseModel):
        return kind(**fields)
    made = kind.__new__(kind)
    for name, part in fields.items():
        object.__setattr__(made, name, part)
    return made
