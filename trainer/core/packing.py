"""Several answers to one prompt in one row, so that the prompt is read once, and several such groups where they fit.

A group is `prompt, answer 1, answer 2, ...`; every answer sees the prompt and itself, and its positions go on from
the prompt's end, so states are those of separate rows (up to rounding) at a fraction of the tokens.

Shapes: R rows, L tokens of a row, N answers, T tokens of the longest answer.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = -1
PROMPT = 0
MAX_ROW_TOKENS = 384
"""Attention is quadratic in a row, so a prompt with many answers is cut into several rows."""
SHORT_ROW_TOKENS = 128
"""Groups shorter than this share rows: padding costs as much as tokens do."""


@dataclass(frozen=True)
class Group:
    """A prompt and some of its answers. `indices` says where the answers stand in the caller's list."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    indices: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + sum(len(a) for a in self.answers)


@dataclass(frozen=True)
class Packed:
    """Rows ready for the model, and where to find the answers in them (N answers in the order of `indices_N`)."""

    spans: tuple[tuple[int, int], ...]
    """Row and first column of each group."""

    tokens_RL: Tensor
    positions_RL: Tensor
    attend_RLL: Tensor
    indices_N: Tensor
    mask_NT: Tensor
    sources_NT: Tensor
    """Flat place (row * L + column) of the state that predicts token t; 0 beyond the mask."""
    places_NT: Tensor
    """Flat place of token t itself; 0 beyond the mask."""


def group_answers(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Group]:
    """Group answers (aligned with `prompts`) by equal prompts, long groups cut at `MAX_ROW_TOKENS`."""
    if len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts for {len(answers)} answers: give one prompt for each answer")
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_prompt.setdefault(tuple(prompt), []).append(index)
    return [
        Group(prompt, tuple(tuple(answers[i]) for i in part), tuple(part))
        for prompt, indices in by_prompt.items()
        for part in _parts(len(prompt), [(i, len(answers[i])) for i in indices])
    ]


def _parts(prompt_length: int, answers: list[tuple[int, int]]) -> Iterator[list[int]]:
    part: list[int] = []
    total = prompt_length
    for index, length in answers:
        if part and total + length > MAX_ROW_TOKENS:
            yield part
            part, total = [], prompt_length
        part.append(index)
        total += length
    if part:
        yield part


def micro_batches(groups: Sequence[Group], max_tokens: int) -> list[list[Group]]:
    """Groups of like length together, each batch of at most `max_tokens` real tokens (one group at least)."""
    batches: list[list[Group]] = []
    room = 0
    for group in sorted(groups, key=lambda g: (-g.n_tokens, g.indices)):
        if not batches or group.n_tokens > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(group)
        room -= group.n_tokens
    return batches


IDLE = Group((0,), ((0,),), (0,))
"""What a process reads that has nothing to read while others have; nobody looks at what comes of it."""


def in_step(batches: Sequence[list[Group]], rounds: int) -> Iterator[tuple[list[Group], bool]]:
    """The batches, and idle ones up to `rounds`, each with whether it is one that counts."""
    for batch in batches:
        yield batch, True
    for _ in range(rounds - len(batches)):
        yield [IDLE], False


def _lay_out(groups: Sequence[Group]) -> tuple[tuple[tuple[int, int], ...], int, int]:
    """Row and first column of each group, by first fit; and the rows' number and length."""
    length = max(*(g.n_tokens for g in groups), min(SHORT_ROW_TOKENS, sum(g.n_tokens for g in groups)))
    used: list[int] = []
    spans: list[tuple[int, int]] = []
    for group in groups:
        row = next((r for r, end in enumerate(used) if end + group.n_tokens <= length), len(used))
        if row == len(used):
            used.append(0)
        spans.append((row, used[row]))
        used[row] += group.n_tokens
    return tuple(spans), len(used), max(used)


def pack(groups: Sequence[Group], *, pad_id: int, device: torch.device) -> Packed:
    """Lay out groups as rows, right-padded. Every prompt and answer needs one token at least."""
    spans, n_rows, length = _lay_out(groups)
    n_answers = sum(len(g.answers) for g in groups)
    longest = max(len(a) for g in groups for a in g.answers)
    tokens = torch.full((n_rows, length), pad_id)
    positions = torch.zeros((n_rows, length), dtype=torch.long)
    owners = torch.full((n_rows, length), PADDING)
    segments = torch.full((n_rows, length), PADDING)
    mask = torch.zeros((n_answers, longest), dtype=torch.bool)
    sources = torch.zeros((n_answers, longest), dtype=torch.long)
    places = torch.zeros((n_answers, longest), dtype=torch.long)
    n = 0
    for owner, (group, (row, first)) in enumerate(zip(groups, spans, strict=True)):
        end = first + len(group.prompt)
        tokens[row, first:end] = torch.tensor(group.prompt)
        positions[row, first:end] = torch.arange(len(group.prompt))
        owners[row, first : first + group.n_tokens] = owner
        segments[row, first:end] = PROMPT
        last_of_prompt = row * length + end - 1
        for number, answer in enumerate(group.answers, start=1):
            start, end = end, end + len(answer)
            tokens[row, start:end] = torch.tensor(answer)
            positions[row, start:end] = torch.arange(len(group.prompt), len(group.prompt) + len(answer))
            segments[row, start:end] = number
            flat = torch.arange(row * length + start, row * length + end)
            mask[n, : len(answer)] = True
            places[n, : len(answer)] = flat
            sources[n, : len(answer)] = torch.cat([torch.tensor([last_of_prompt]), flat[:-1]])
            n += 1
    indices = torch.tensor([i for g in groups for i in g.indices])
    parts = (tokens, positions, _attend(owners, segments), indices, mask, sources, places)
    return Packed(spans, *(part.to(device) for part in parts))


def place_rows(rows: Sequence[Tensor], packed: Packed) -> Tensor:
    """States R,L,D from each group's own (its tokens, D); padding is zero."""
    shape = packed.tokens_RL.shape
    placed_RLD = rows[0].new_zeros(*shape, rows[0].shape[1])
    for (row, first), states in zip(packed.spans, rows, strict=True):
        placed_RLD[row, first : first + len(states)] = states
    return placed_RLD


def _attend(owners_RL: Tensor, segments_RL: Tensor) -> Tensor:
    """Who looks at whom: backwards, at the own group's prompt and the own answer; padding at itself, to stay finite."""
    length = segments_RL.shape[1]
    same_group = (owners_RL[:, :, None] == owners_RL[:, None, :]) & (owners_RL != PADDING)[:, :, None]
    query, key = segments_RL[:, :, None], segments_RL[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (same_group & ((key == query) | (key == PROMPT)) & causal) | torch.eye(length, dtype=torch.bool)
