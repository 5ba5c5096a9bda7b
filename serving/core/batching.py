"""Who joins the batch, and which decode group goes next: decisions of the continuous batcher.

A decode group holds the answers of one version that advance together, one token a step. Requests join their
version's group between two steps and leave it when they are done, so a short answer never waits for a long one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in the queue: its version, and its prompt's length in tokens."""

    version: str
    prompt_tokens: int


def admit(
    queue: Sequence[Waiting], *, running: int, max_batch: int, max_prefill_tokens: int
) -> Mapping[str, tuple[int, ...]]:
    """Positions in `queue` (first come, first served) that join now, by version.

    A prefill is padded to its longest prompt, so what it costs is rows x longest. The first request always
    fits: however long its prompt, it must be read some time.
    """
    chosen: dict[str, list[int]] = {}
    longest: dict[str, int] = {}
    for position, request in enumerate(queue):
        if running + sum(map(len, chosen.values())) >= max_batch:
            break
        grown = longest | {request.version: max(longest.get(request.version, 0), request.prompt_tokens)}
        rows = {v: len(chosen.get(v, ())) + (v == request.version) for v in grown}
        if chosen and sum(grown[v] * rows[v] for v in grown) > max_prefill_tokens:
            break
        chosen.setdefault(request.version, []).append(position)
        longest = grown
    return {version: tuple(positions) for version, positions in chosen.items()}


def evictable(
    loaded: Sequence[str], *, in_use: frozenset[str], keep: frozenset[str], max_adapters: int
) -> tuple[str, ...]:
    """Adapters to drop, `loaded` being ordered from the least recently used: never one in use or worth keeping."""
    surplus = max(0, len(loaded) - max_adapters)
    return tuple(v for v in loaded if v not in in_use and v not in keep)[:surplus]
