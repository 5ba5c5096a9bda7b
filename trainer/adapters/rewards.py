"""A reward of the user's own: a Python function, an `nn.Module` on the features, or an HTTP endpoint.

Which one is said by the settings alone, never by a record or a table: what is imported here is code. A reward that
fails, or gives anything but one finite number for each answer, ends the cycle with `RewardFailed`; no version comes
of it. What trained a version is in its record by name and by the SHA-256 of its source (for an endpoint its address).
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from schemas.errors import RewardFailed, SettingsError
from trainer.adapters.reward_endpoint import Endpoint
from trainer.core.rewards import RawReward, usable
from trainer.settings import ExtraRewardInfo, TrainerSettings

_imported: dict[str, str] = {}
"""The SHA-256 of each module's source when this process imported it."""


@dataclass(frozen=True)
class ExtraReward:
    """A reward of the user's own, and how a record tells of it."""

    info: ExtraRewardInfo
    raw: RawReward


def load_reward(settings: TrainerSettings) -> ExtraReward | None:
    """The reward that the settings name, or None; raises `SettingsError` where it can't be had."""
    if settings.reward_function is not None:
        function, digest = named(settings.reward_function)
        raw = FunctionReward(function, settings.reward_function)
        return ExtraReward(settings.extra_reward("function", settings.reward_function, digest), raw)
    if settings.reward_module is not None:
        factory, digest = named(settings.reward_module)
        weights = settings.reward_module_weights
        module = ModuleReward(factory, settings.reward_module, weights)
        if weights is not None:
            digest = _sha256(digest.encode() + _bytes(weights))
        return ExtraReward(settings.extra_reward("module", settings.reward_module, digest), module)
    if settings.reward_endpoint is not None:
        endpoint = Endpoint(
            settings.reward_endpoint,
            token=_token(settings),
            seconds=settings.reward_endpoint_seconds,
            tries=1 + settings.reward_endpoint_retries,
        )
        return ExtraReward(settings.extra_reward("endpoint", endpoint.shown, None), endpoint)
    return None


def _token(settings: TrainerSettings) -> str | None:
    if settings.reward_endpoint_token_file is not None:
        return _bytes(settings.reward_endpoint_token_file).decode("utf-8", "replace").strip()
    token = settings.reward_endpoint_token
    return None if token is None else token.get_secret_value()


def same_reward(settings: TrainerSettings, recorded: ExtraRewardInfo | None) -> ExtraReward | None:
    """The reward that a version was trained with, for making it again; raises `SettingsError` where it is another."""
    found = load_reward(settings)
    today = None if found is None else found.info
    if today != recorded:
        raise SettingsError(
            f"the version was trained with {_told(recorded)}, and the settings name {_told(today)}: "
            "set the THUMBWHEEL_REWARD_* settings, and the files that they name, as they were"
        )
    return found


def _told(info: ExtraRewardInfo | None) -> str:
    if info is None:
        return "no reward of one's own"
    source = "" if info.sha256 is None else f" (SHA-256 {info.sha256[:12]}...)"
    return f"the {info.kind} {info.name}{source} at weight {info.weight:g} beside {info.ensemble_weight:g}"


class FunctionReward:
    """`function(prompts, completions)` gives a list of floats. It is trusted as this program's own code is."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function, self._who = function, f"the reward function {name}"

    def __call__(self, features_NF: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        try:
            found = self._function(list(prompts), list(texts))
        except Exception as error:
            raise RewardFailed(f"{self._who} failed: {type(error).__name__}: {error}") from error
        return usable(found, len(texts), self._who)


class ModuleReward:
    """`factory(n_features)` gives an `nn.Module` from features N,F (fp32, on the CPU) to rewards N."""

    def __init__(self, factory: Callable[..., Any], name: str, weights: Path | None) -> None:
        self._factory, self._who, self._weights = factory, f"the reward module {name}", weights
        self._module: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, features_NF: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        features_NF = features_NF.float().cpu()
        try:
            if self._module is None:
                self._module = self._made(features_NF.shape[1])
            found = self._module(features_NF)
        except (SafetensorError, OSError) as error:
            raise RewardFailed(f"{self._who}: its weights {self._weights} can't be read: {error}") from error
        except Exception as error:
            raise RewardFailed(f"{self._who} failed: {type(error).__name__}: {error}") from error
        return usable(found, len(texts), self._who)

    def _made(self, n_features: int) -> nn.Module:
        made = self._factory(n_features)
        if not isinstance(made, nn.Module):
            raise TypeError(f"the factory gave a {type(made).__name__}, not a torch.nn.Module")
        if self._weights is not None:
            made.load_state_dict(load_file(self._weights))
        return made.eval().cpu()


def named(spec: str) -> tuple[Callable[..., Any], str]:
    """`module:name` or `path/to/file.py:name` as the callable and the SHA-256 of its source file."""
    where, _, name = spec.rpartition(":")
    if not where or not name.isidentifier():
        raise SettingsError(f"{spec!r} names no reward: write module:name or path/to/file.py:name")
    module, digest = _from_file(Path(where)) if where.endswith(".py") else _from_module(where)
    found = getattr(module, name, None)
    if not callable(found):
        raise SettingsError(f"{where} has no function {name} (asked for by {spec!r})")
    return found, digest


def _from_file(path: Path) -> tuple[ModuleType, str]:
    """The file's code, run anew: what is hashed is what runs."""
    source = _bytes(path)
    module = ModuleType(f"thumbwheel_reward_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own file, by a setting
    except Exception as error:
        raise SettingsError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    return module, _sha256(source)


def _from_module(name: str) -> tuple[ModuleType, str]:
    try:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SettingsError(f"there is no module {name}: is it installed, or on PYTHONPATH?")
        digest = _sha256(_bytes(Path(spec.origin)))
        fresh = name not in sys.modules
        module = importlib.import_module(name)
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError(f"the module {name} can't be imported: {type(error).__name__}: {error}") from error
    known = digest if fresh else _imported.get(name, digest)
    _imported[name] = known
    if known != digest:
        raise SettingsError(f"the source of {name} has changed since this process imported it: start the trainer anew")
    return module, digest


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
