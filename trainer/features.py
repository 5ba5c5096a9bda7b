"""From labels to tensors: what the frozen base makes of every answer that somebody judged.

Shapes: N distinct answers, F features, P pairs, R rated answers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from trainer.adapters.feature_cache import FeatureCache
from trainer.adapters.policies import LanguageModel
from trainer.core.dataset import Labels, Row, Turn
from trainer.core.domains import Traffic
from trainer.core.labels import texts_of
from trainer.core.models import Tokens
from trainer.core.packing import Group, in_step
from trainer.core.parallel import ALONE, Peers
from trainer.core.reading import read, reading_batches, reading_groups
from trainer.core.reward_data import UNKNOWN_RATER, LabelDomains, RewardData
from trainer.core.safety import SafetyData
from trainer.core.safety_examples import SafetyExample
from trainer.settings import Limits

Progress = Callable[[float], None]
"""Told the share of a stage that is done; may raise to end it."""

AnswerKey = tuple[tuple[Turn, ...], str]
"""A prompt and an answer to it."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of every distinct answer. `tokens` is how many the base has read for them."""

    rows: Mapping[AnswerKey, int]
    features_NF: Tensor
    tokens: int


def chat(prompt: Sequence[Turn]) -> list[dict[str, str]]:
    """Turns as chat messages."""
    return [{"role": role, "content": content} for role, content in prompt]


def encode_prompt(lm: LanguageModel, prompt: Sequence[Turn], limits: Limits) -> list[int]:
    """Token ids of a prompt; of a long one the end, where the question is."""
    return lm.encode_prompt(chat(prompt))[-limits.prompt_tokens :]


def encode_answer(lm: LanguageModel, text: str, limits: Limits) -> list[int]:
    """Token ids of an answer; of a long one the beginning, with EOS all the same."""
    ids = lm.encode_completion(text)
    return ids if len(ids) <= limits.answer_tokens else [*ids[: limits.answer_tokens - 1], ids[-1]]


def featurize(
    lm: LanguageModel,
    answers: Sequence[AnswerKey],
    limits: Limits,
    progress: Progress,
    cache: FeatureCache | None = None,
    *,
    peers: Peers = ALONE,
) -> FeatureTable:
    """Features of answers (prompt, completion) on the frozen base; each distinct one is read once, or found in `cache`.

    Several processes share what is to be read. The cache is process 0's, which alone has the whole table then; in the
    others what was found in it is zero.

    On the CPU they are the same, bit by bit, whatever else is read; of a prompt's answers, two are read together in the
    order in which they come here. `tokens` counts what was read.
    """
    distinct = list(dict.fromkeys(answers))
    encoded = {prompt: tuple(encode_prompt(lm, prompt, limits)) for prompt in dict.fromkeys(p for p, _ in distinct)}
    tokens = [(encoded[prompt], tuple(encode_answer(lm, text, limits))) for prompt, text in distinct]
    groups = reading_groups([prompt for prompt, _ in tokens], [answer for _, answer in tokens])
    found, n_tokens = _read(lm, groups, progress, cache, peers)
    return FeatureTable(
        {key: n for n, key in enumerate(distinct)}, torch.stack([found[read_as] for read_as in tokens]), n_tokens
    )


_Read = tuple[Tokens, Tokens]
"""A prompt and an answer to it, as they are read."""


def _read(
    lm: LanguageModel, groups: Sequence[Group], progress: Progress, cache: FeatureCache | None, peers: Peers
) -> tuple[dict[_Read, Tensor], int]:
    """Features F by tokens, and how many tokens were read for them."""
    known = cache.find(groups) if cache else {}
    kept = [known.get(cache.key(group)) if cache else None for group in groups]
    missing = [groups[n] for n in peers.told(lambda: [n for n, found in enumerate(kept) if found is None])]
    features: dict[_Read, Tensor] = {}
    width = 2 * lm.head_weight().shape[1]
    for group, found in zip(groups, kept, strict=True):
        _note(features, group, torch.zeros(len(group.answers), width) if found is None else found)
    batches = reading_batches(missing, lm.device)
    own = batches[peers.rank :: peers.size]
    total, done = sum(group.n_tokens for batch in own for group in batch), 0
    steps = list(in_step(own, lm.rounds(len(own))))
    with lm.reference(), cache or nullcontext(), _side_by_side(lm) as mapped:
        for (batch, counts), read_NF in zip(steps, mapped(lambda step: read(lm, step[0]), steps), strict=True):
            if not counts:
                continue
            for group, part in zip(batch, read_NF.split([len(g.answers) for g in batch]), strict=True):
                _note(features, group, part)
                done += group.n_tokens
                if cache:
                    cache.add(cache.key(group), part)
            progress(done / total)
        if peers.size > 1 and missing:
            _share(features, missing, [group for batch in own for group in batch], peers, cache)
    return features, sum(group.n_tokens for group in missing)


def _note(features: dict[_Read, Tensor], group: Group, features_NF: Tensor) -> None:
    features.update(zip(((group.prompt, answer) for answer in group.answers), features_NF, strict=True))


def _share(
    features: dict[_Read, Tensor],
    missing: Sequence[Group],
    own: Sequence[Group],
    peers: Peers,
    cache: FeatureCache | None,
) -> None:
    """Give all processes what each has read of what was missing; nobody else's rows are more than zeros so far."""
    read_MF = torch.stack([features[group.prompt, answer] for group in missing for answer in group.answers])
    peers.sum(read_MF)
    mine = set(map(id, own))
    for group, part in zip(missing, read_MF.split([len(group.answers) for group in missing]), strict=True):
        _note(features, group, part)
        if cache and id(group) not in mine:
            cache.add(cache.key(group), part)


@contextmanager
def _side_by_side(lm: LanguageModel) -> Iterator[Callable[..., Iterator[Tensor]]]:
    """A `map` that reads with as many threads as torch may use, each by itself.

    Two threads that share the product of a few rows wait for one another more than they compute (SmolLM2, two answers
    at a time: 1.2 times as fast as one); and so an answer's features don't depend on how many threads there are. A base
    that is cut up over processes is read by one thread: all must come to its blocks in the same order.
    """
    threads = torch.get_num_threads()
    if lm.device.type != "cpu" or threads == 1 or lm.together is not None:
        yield map
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def answers_of(labels: Labels) -> list[AnswerKey]:
    """Every answer that the labels speak of."""
    pairs = [(row.prompt, text) for row in labels.pairs for text in (row.chosen, row.rejected)]
    return [*pairs, *((row.prompt, row.completion) for row in labels.ratings)]


def in_order_of_time(parts: Iterable[Labels], others: Iterable[AnswerKey]) -> list[AnswerKey]:
    """Every distinct answer, in the order in which people first spoke of it; then the others.

    So an answer that comes later does not change with which of its prompt's answers an earlier one is read.
    """
    rows = sorted((row for part in parts for row in part.rows()), key=lambda row: (row.judged_at, row.id))
    return list(dict.fromkeys([*((row.prompt, text) for row in rows for text in texts_of(row)), *others]))


def reward_data(
    labels: Labels,
    table: FeatureTable,
    segments: Mapping[str, str] = MappingProxyType({}),
    people: Mapping[str, int] | None = None,
    traffic: Traffic | None = None,
) -> RewardData:
    """Labels as tensors, with the rows of their own answers alone. `segments` are by response id, for the report.

    `people` numbers the raters where several sets shall number them alike. `traffic` tells the labels' domains; None
    for a model that is the same for all.
    """
    keys = list(dict.fromkeys(answers_of(labels)))
    row = {key: n for n, key in enumerate(keys)}
    groups = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in keys))}
    pairs = [(row[r.prompt, r.chosen], row[r.prompt, r.rejected]) for r in labels.pairs]
    people = numbered(labels) if people is None else people
    return RewardData(
        features_NF=table.features_NF[torch.tensor([table.rows[key] for key in keys], dtype=torch.long)],
        lengths_N=torch.tensor([len(text.split()) for _, text in keys], dtype=torch.long),
        groups_N=torch.tensor([groups[prompt] for prompt, _ in keys], dtype=torch.long),
        pairs_P2=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        pair_weights_P=torch.tensor([r.weight for r in labels.pairs]),
        rated_R=torch.tensor([row[r.prompt, r.completion] for r in labels.ratings], dtype=torch.long),
        labels_R=torch.tensor([float(r.label) for r in labels.ratings]),
        rating_weights_R=torch.tensor([r.weight for r in labels.ratings]),
        raters_R=_numbers(labels.ratings, people),
        raters_P=_numbers(labels.pairs, people),
        sources_P=tuple(r.source for r in labels.pairs),
        segments_P=tuple(next((segments[i] for i in r.responses if i in segments), "") for r in labels.pairs),
        segments_R=tuple(segments.get(r.response, "") for r in labels.ratings),
        domains=None if traffic is None or not traffic.answered else _domains(labels, traffic, people),
    )


def _domains(labels: Labels, traffic: Traffic, people: Mapping[str, int]) -> LabelDomains:
    """The labels' domains, and who else is behind a pair: some rate nothing in these sets, and get further numbers."""
    others = [traffic.other(row) for row in labels.pairs]
    everyone = dict(people)
    for other in others:
        if other is not None:
            everyone.setdefault(other, len(everyone))
    numbers = [UNKNOWN_RATER if other is None else everyone[other] for other in others]
    return LabelDomains(
        names_P=tuple(traffic.domain(row) for row in labels.pairs),
        names_R=tuple(traffic.domain(row) for row in labels.ratings),
        others_P=torch.tensor(numbers, dtype=torch.long),
    )


def safety_data(examples: Sequence[SafetyExample], table: FeatureTable) -> SafetyData:
    """Examples as tensors; the features of each are in `table`."""
    groups = {prompt: n for n, prompt in enumerate(dict.fromkeys(e.prompt for e in examples))}
    rows = torch.tensor([table.rows[e.key] for e in examples], dtype=torch.long)
    return SafetyData(
        features_NF=table.features_NF[rows],
        groups_N=torch.tensor([groups[e.prompt] for e in examples], dtype=torch.long),
        unsafe_N=torch.tensor([float(e.unsafe) for e in examples]),
        weights_N=torch.tensor([e.weight for e in examples]),
    )


def numbered(*sets: Labels) -> dict[str, int]:
    """A number for each person whom a label names, in order of appearance, thumbs first."""
    named = (row.rater for labels in sets for row in (*labels.ratings, *labels.pairs))
    return {rater: n for n, rater in enumerate(dict.fromkeys(r for r in named if r is not None))}


def _numbers(rows: Sequence[Row], people: Mapping[str, int]) -> Tensor:
    numbers = [UNKNOWN_RATER if row.rater is None else people[row.rater] for row in rows]
    return torch.tensor(numbers, dtype=torch.long)
