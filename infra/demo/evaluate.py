"""The versions compared by the users' true taste, on prompts that nobody asked in the demo.

Each version is pinned at the gateway that served it, with the sampling of production, `store: false` and seeds that
depend on prompt and sample only. The taste judges every answer, without noise. A version's win rate is the share of
(its answer, an answer of the base to the same prompt) pairs in which its own is worth more; ties count one half.
Intervals are clustered by prompt (see `statistics.clustered_mean`).
"""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from infra.demo.options import Tuning
from infra.demo.statistics import Estimate, clustered_mean, wins
from infra.simulate import prompts
from infra.simulate.client import GatewayClient, GatewayFailed
from infra.simulate.tastes import Taste
from schemas.versions import BASE_VERSION

Texts = Sequence[Sequence[str]]
"""The answers of one version: for each prompt, its samples."""


@dataclass(frozen=True)
class Score:
    """What one version is worth to the users. `mean_words` is there because longer answers are an easy trick."""

    version: str
    true_taste: Estimate
    win_rate: Estimate
    mean_words: float


@dataclass(frozen=True)
class Example:
    """One held-out prompt with the first sample of each version and what it is worth."""

    prompt: str
    answers: dict[str, tuple[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """Scores by version; `left_out` says why a version has none."""

    scores: dict[str, Score]
    examples: tuple[Example, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


async def evaluate(
    client: GatewayClient,
    versions: Sequence[str],
    *,
    tuning: Tuning,
    taste: Taste,
    seed: int,
    optional: frozenset[str] = frozenset(),
    on_progress: Callable[[float], None] = lambda _: None,
) -> Evaluation:
    """Ask all versions and compare them with the base. Those in `optional` may be missing (rejected ones)."""
    asked = prompts.held_out()
    texts: dict[str, Texts] = {}
    left_out: list[tuple[str, str]] = []
    for number, version in enumerate(versions):

        def report(share: float, done: int = number) -> None:
            on_progress((done + share) / len(versions))

        try:
            texts[version] = await ask_all(client, version, asked, tuning=tuning, on_progress=report)
        except GatewayFailed as error:
            if version not in optional:
                raise
            left_out.append((version, str(error)))
    return judge(asked, texts, taste=taste, seed=seed, left_out=left_out)


async def ask_all(
    client: GatewayClient,
    version: str,
    asked: Sequence[str],
    *,
    tuning: Tuning,
    on_progress: Callable[[float], None] = lambda _: None,
) -> list[list[str]]:
    """Every prompt, `evaluation_samples` times, to one pinned version."""
    gate = asyncio.Semaphore(tuning.concurrency)
    done = 0

    async def one(number: int, sample: int) -> str:
        nonlocal done
        async with gate:
            reply = await client.ask(
                [dict(m) for m in prompts.as_messages(asked[number], tuning.instruction)],
                model=f"thumbwheel:{version}",
                temperature=tuning.temperature,
                max_completion_tokens=tuning.max_completion_tokens,
                seed=1_000_000 + 1000 * number + sample,
                store=False,
            )
        done += 1
        on_progress(done / (len(asked) * tuning.evaluation_samples))
        return reply.text

    samples = range(tuning.evaluation_samples)
    # The first answer alone: a version that can't be pinned is refused once, not many times at once.
    first = await one(0, 0)
    rest = [(n, s) for n, s in product(range(len(asked)), samples) if (n, s) != (0, 0)]
    texts = [first, *await asyncio.gather(*(one(n, s) for n, s in rest))]
    return [texts[i : i + len(samples)] for i in range(0, len(texts), len(samples))]


def judge(
    asked: Sequence[str],
    texts: Mapping[str, Texts],
    *,
    taste: Taste,
    seed: int,
    examples: int = 8,
    left_out: Sequence[tuple[str, str]] = (),
) -> Evaluation:
    """The scores of all versions. Pure but for the taste. Examples are evenly spaced prompts, not the best ones."""
    worth = {
        version: [[taste(p, text) for text in samples] for p, samples in zip(asked, answers, strict=True)]
        for version, answers in texts.items()
    }
    scores = {v: _score(v, worth[v], worth[BASE_VERSION], texts[v], seed) for v in texts}
    step = max(1, len(asked) // examples)
    shown = tuple(
        Example(asked[i], {v: (texts[v][i][0], worth[v][i][0]) for v in texts})
        for i in range(step // 2, len(asked), step)
    )
    return Evaluation(scores, shown[:examples], tuple(left_out))


def _score(
    version: str, ours: Sequence[Sequence[float]], base: Sequence[Sequence[float]], texts: Texts, seed: int
) -> Score:
    rates = [0.5] * len(ours) if version == BASE_VERSION else [wins(a, b) for a, b in zip(ours, base, strict=True)]
    return Score(
        version=version,
        true_taste=clustered_mean([statistics.fmean(values) for values in ours], seed=seed),
        win_rate=clustered_mean(rates, seed=seed),
        mean_words=statistics.fmean(len(t.split()) for samples in texts for t in samples),
    )
