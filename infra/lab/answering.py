"""Answers of a version, in batches, by the policy code that trains it: no gateway, no HTTP.

The same prompts, version, seed and number of threads give the same answers on the same processor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from infra.demo.options import Tuning
from infra.lab.stop import Stop, check
from infra.simulate.prompts import as_messages
from schemas.versions import BASE_VERSION
from trainer.adapters.policies import LoraSettings, Policy, attach_policy
from trainer.adapters.registry import Registry
from trainer.core.rollout import SamplingConfig, sample
from trainer.cycle import LoadBase

BATCH = 64


@dataclass(frozen=True)
class Drawn:
    """One answer. `finished`: it ended by itself and not at the token limit."""

    text: str
    input_tokens: int
    output_tokens: int
    finished: bool


class Answerer:
    """Samples as production would. It keeps the version in memory that was asked last."""

    def __init__(self, registry: Registry, tuning: Tuning, *, load_base: LoadBase, stop: Stop) -> None:
        self._registry, self._tuning, self._load_base, self._stop = registry, tuning, load_base, stop
        self._sampling = SamplingConfig(max_new_tokens=tuning.max_completion_tokens, temperature=tuning.temperature)
        self._held: tuple[str, Policy] | None = None

    def answers(
        self,
        version: str,
        prompts: Sequence[str],
        *,
        seed: int,
        each: int = 1,
        progress: Callable[[float], None] = lambda _: None,
    ) -> list[list[Drawn]]:
        """`each` answers to every prompt. Raises `CorruptAdapter`, `UnknownVersion`, `ModelError`, `Interrupted`."""
        if not prompts:
            return []
        policy = self._policy(version)
        encoded = [self._encode(policy, prompt) for prompt in prompts]
        generator = torch.Generator().manual_seed(seed)
        found: list[list[Drawn]] = []
        rows = max(1, BATCH // each)
        for start in range(0, len(encoded), rows):
            check(self._stop)
            found += self._batch(policy, version, encoded[start : start + rows], each, generator)
            progress(len(found) / len(encoded))
        return found

    def forget(self) -> None:
        """Let go of the model: a cycle loads one of its own."""
        self._held = None

    def _batch(
        self, policy: Policy, version: str, prompts: Sequence[list[int]], each: int, generator: torch.Generator
    ) -> list[list[Drawn]]:
        if version == BASE_VERSION:
            with policy.reference():
                rollouts = sample(policy, prompts, each, self._sampling, generator)
        else:
            rollouts = sample(policy, prompts, each, self._sampling, generator)
        drawn = [
            Drawn(policy.lm.decode(tokens), len(prompt), len(tokens), bool(finished))
            for tokens, prompt, finished in zip(
                rollouts.answers(), rollouts.prompts, rollouts.finished_N.tolist(), strict=True
            )
        ]
        return [drawn[n : n + each] for n in range(0, len(drawn), each)]

    def _encode(self, policy: Policy, prompt: str) -> list[int]:
        return policy.lm.encode_prompt([dict(m) for m in as_messages(prompt, self._tuning.instruction)])

    def _policy(self, version: str) -> Policy:
        if self._held is None or self._held[0] != version:
            self._held = None  # before the next one is loaded: two of them may not fit
            folder = None if version == BASE_VERSION else self._registry.folder(self._registry.verify(version).version)
            # A new adapter changes nothing, and the base is sampled with it off.
            self._held = version, attach_policy(self._load_base(), LoraSettings(), adapter_dir=folder)
        return self._held[1]
