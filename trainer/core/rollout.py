"""Answers drawn from a policy, with all that PPO needs of them, and one look at them by the frozen base.

Implemented: left-padded prompts, positions from the mask; one temperature, no top-k, no top-p; log-probs, values and
(where asked for) the states below the adapters kept from decoding; a prompt is read once for all its answers; an answer
stops at its first EOS and leaves the batch; inverse-CDF sampling from uniforms drawn up front, so that a seed gives the
same answers on CPU and GPU up to rounding.

Shapes: P prompts, G answers to each, N = P * G, T new tokens at most, L longest prompt, F features.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.core.losses import log_softmax, selected_log_probs
from trainer.core.lower_states import ByGroup, LowerStates, placed
from trainer.core.models import LanguageModel, Policy, Tokens
from trainer.core.packing import Group, Packed, group_answers, in_step, micro_batches, pack


@dataclass(frozen=True)
class SamplingConfig:
    """How answers are drawn. The gateway should use the same temperature, or what is learned is not what is served."""

    max_new_tokens: int = 32
    temperature: float = 0.8

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature <= 0:
            raise ValueError("max_new_tokens and temperature must be above zero")


@dataclass(frozen=True)
class Rollouts:
    """N sampled answers. Tokens beyond `mask_NT` are padding; an EOS that was drawn is under the mask."""

    prompts: tuple[Tokens, ...]
    """One prompt for each answer (length N)."""
    tokens_NT: Tensor
    mask_NT: Tensor
    log_probs_NT: Tensor
    values_NT: Tensor
    entropies_NT: Tensor
    finished_N: Tensor
    """Whether EOS was drawn before the token limit."""
    lower: LowerStates | None = field(default=None, repr=False)
    """States below the adapters, if they were to be kept; of several processes, those of its own answers."""

    def answers(self) -> list[Tokens]:
        """Real tokens of each answer, EOS included."""
        lengths = self.mask_NT.sum(1).tolist()
        return [tuple(row[:n]) for row, n in zip(self.tokens_NT.tolist(), lengths, strict=True)]


@dataclass(frozen=True)
class Looked:
    """What the frozen base says of answers: log-probs N,T (0 beyond the answer) and reward features N,F."""

    log_probs_NT: Tensor
    features_NF: Tensor
    lower: ByGroup
    """States after the model's `split` blocks; empty if not kept."""


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    answers_per_prompt: int,
    config: SamplingConfig,
    generator: torch.Generator,
    *,
    rows: Sequence[int] | None = None,
    keep_lower: bool = False,
) -> Rollouts:
    """Draw `answers_per_prompt` answers to each prompt; answers to one prompt stand together.

    `generator` lives on the CPU. The policy is used as it is: go into `policy.reference()` to sample the base. With
    `rows` (at least one) only these of the answers are drawn, with the random numbers that they have among all.
    `keep_lower` keeps the states below the adapters; answers cut at the limit then have their last token read too.
    """
    lm, n_answers = policy.lm, len(prompts) * answers_per_prompt
    uniforms_NT = torch.rand(n_answers, config.max_new_tokens, generator=generator)
    uniforms_NT = (uniforms_NT if rows is None else uniforms_NT[list(rows)]).to(lm.device)
    shape = uniforms_NT.shape
    tokens = torch.full(shape, lm.pad_id, device=lm.device)
    mask = torch.zeros(shape, dtype=torch.bool, device=lm.device)
    log_probs, values, entropies = (torch.zeros(shape, device=lm.device) for _ in range(3))
    with lm.decoding():
        keep = keep_lower and lm.split > 0
        decoding = _Decoding.start(lm, prompts, answers_per_prompt, config.max_new_tokens, rows, keep_lower=keep)
        for t in range(config.max_new_tokens):
            alive_A = decoding.alive_A
            log_probs_AV = log_softmax(lm.logits(decoding.states_AD), config.temperature)
            probs_AV = log_probs_AV.exp()
            tokens_A = draw(probs_AV, uniforms_NT[alive_A, t])
            going_A = tokens_A != lm.eos_id
            if not decoding.idle:
                tokens[alive_A, t] = tokens_A
                mask[alive_A, t] = True
                log_probs[alive_A, t] = log_probs_AV.gather(1, tokens_A[:, None]).squeeze(1)
                entropies[alive_A, t] = -probs_AV.mul_(log_probs_AV).sum(1)
                values[alive_A, t] = policy.values(decoding.states_AD)
            busy = not decoding.idle and bool(going_A.any())
            if (t + 1 == config.max_new_tokens and not keep) or not lm.rounds(int(busy)):
                break
            if not busy:
                decoding.idle, going_A = True, _first(going_A)
            decoding.advance(tokens_A, going_A)
    finished = ((tokens == lm.eos_id) & mask).any(1)
    chosen = range(n_answers) if rows is None else rows
    repeated = tuple(tuple(prompts[n // answers_per_prompt]) for n in chosen)
    return Rollouts(repeated, tokens, mask, log_probs, values, entropies, finished, decoding.lower(chosen))


def draw(probs_AV: Tensor, uniforms_A: Tensor) -> Tensor:
    """Inverse-CDF sampling: the first token whose cumulative probability exceeds the uniform number."""
    cumulative = probs_AV.cumsum(-1)
    wanted = (uniforms_A * cumulative[:, -1])[:, None]
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(1).clamp_(max=probs_AV.shape[1] - 1)


def _first(rows_A: Tensor) -> Tensor:
    return torch.arange(len(rows_A), device=rows_A.device) == 0


class _Decoding:
    """The batch in flight: A answers that are not finished, their cache and their newest states."""

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[Sequence[int]],
        answers_per_prompt: int,
        new_tokens: int,
        rows: Sequence[int] | None,
        keep_lower: bool,
    ) -> None:
        picks: list[int] | None = None
        if rows is not None:
            used = sorted({n // answers_per_prompt for n in rows})
            picks = [used.index(n // answers_per_prompt) for n in rows]
            prompts = [prompts[p] for p in used]
        longest = max(len(p) for p in prompts)
        padded = [[lm.pad_id] * (longest - len(p)) + list(p) for p in prompts]
        real = [[False] * (longest - len(p)) + [True] * len(p) for p in prompts]
        attend_PL = torch.tensor(real, device=lm.device)
        self.lm = lm
        self.cache = lm.new_cache(longest + new_tokens)
        self._layers = (lm.split,) if keep_lower else ()
        *lower, states_PLD = lm.states(
            torch.tensor(padded, device=lm.device),
            positions_BT=(attend_PL.long().cumsum(1) - 1).clamp(min=0),
            attend=attend_PL,
            layers=self._layers,
            cache=self.cache,
        )
        states_PD = states_PLD[:, -1]
        self._lower_prompts = {
            tuple(prompt): row_LD[longest - len(prompt) :]
            for lower_PLD in lower
            for prompt, row_LD in zip(prompts, lower_PLD, strict=True)
        }
        if picks is None:
            self.cache.batch_repeat_interleave(answers_per_prompt)
            self.states_AD = states_PD.repeat_interleave(answers_per_prompt, 0)
            self.attend_AS = attend_PL.repeat_interleave(answers_per_prompt, 0)
        else:
            picks_A = torch.tensor(picks, device=lm.device)
            self.cache.batch_select_indices(picks_A)
            self.states_AD, self.attend_AS = states_PD[picks_A], attend_PL[picks_A]
        self.positions_A = self.attend_AS.sum(1)
        self.alive_A = torch.arange(len(self.attend_AS), device=lm.device)
        self._lower_ATD = states_PD.new_zeros(len(self.alive_A), new_tokens if keep_lower else 0, states_PD.shape[1])
        self._read = 0
        """Tokens read of the answers so far."""
        self.idle = False
        """Whether all answers are finished, and a row is only read on because other processes need the model."""

    @classmethod
    def start(
        cls,
        lm: LanguageModel,
        prompts: Sequence[Sequence[int]],
        answers_per_prompt: int,
        new_tokens: int,
        rows: Sequence[int] | None = None,
        *,
        keep_lower: bool = False,
    ) -> "_Decoding":
        if not prompts or any(len(p) == 0 for p in prompts):
            raise ValueError("give at least one prompt, each of at least one token")
        return cls(lm, prompts, answers_per_prompt, new_tokens, rows, keep_lower)

    def advance(self, tokens_A: Tensor, going_A: Tensor) -> None:
        """Drop what is finished and read one token more of the others."""
        if not bool(going_A.all()):
            keep = going_A.nonzero().squeeze(1)
            self.cache.batch_select_indices(keep)
            tokens_A, self.alive_A = tokens_A[keep], self.alive_A[keep]
            self.attend_AS, self.positions_A = self.attend_AS[keep], self.positions_A[keep]
        self.attend_AS = torch.cat([self.attend_AS, self.attend_AS.new_ones(len(tokens_A), 1)], dim=1)
        *lower, states_A1D = self.lm.states(
            tokens_A[:, None],
            positions_BT=self.positions_A[:, None],
            attend=self.attend_AS,
            layers=self._layers,
            cache=self.cache,
        )
        self.states_AD = states_A1D[:, -1]
        self.positions_A = self.positions_A + 1
        if lower and not self.idle:
            self._lower_ATD[self.alive_A, self._read] = lower[0][:, -1]
        self._read += 1

    def lower(self, chosen: Sequence[int]) -> LowerStates | None:
        """What was kept; `chosen` are the answers' places among all."""
        if not self._layers:
            return None
        return LowerStates(self._lower_prompts, {n: row for row, n in enumerate(chosen)}, self._lower_ATD)


def feature_layer(n_layers: int) -> int:
    """The layer whose mean state the reward model reads: two thirds up, where wording is plain to a linear head."""
    return max(1, round(n_layers * 2 / 3))


@torch.no_grad()
def look(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens: int = 1024,
    log_probs_too: bool = True,
    keep_lower: bool = False,
    groups: Sequence[Group] | None = None,
    lower: LowerStates | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Looked:
    """One forward pass of the frozen base over answers: reference log-probs and reward features.

    `answers` are aligned with `prompts` and end with EOS if it was drawn. Features leave EOS out, so that an answer
    read from a table and one cut at the token limit are seen alike. Without `log_probs_too` the output matrix, a fifth
    of a small model's work, is left out, and the log-probs are zeros. `keep_lower` keeps the states below the adapters.
    Of `groups` (some of `group_answers`) the answers' rows are filled, and the others are zero. `lower`, if decoding
    has kept it, spares the blocks below the adapters.
    """
    weight_VD = lm.head_weight()
    longest = max(len(a) for a in answers)
    log_probs = torch.zeros(len(answers), longest, device=lm.device)
    features_NF = torch.zeros(len(answers), 2 * weight_VD.shape[1], device=lm.device)
    done = 0
    groups = group_answers(prompts, answers) if groups is None else groups
    # A feature that lies below the split is made by the blocks that the kept states would spare.
    spared = lower is not None and feature_layer(lm.n_layers) > lm.split
    known = lower.of(groups) if lower is not None and spared else {}
    keep = keep_lower and lm.split > 0 and not spared
    layers = (feature_layer(lm.n_layers), *((lm.split,) if keep else ()))
    made: dict[Tokens, Tensor] = {}
    with lm.reference():
        batches = micro_batches(groups, max_tokens)
        for batch, counts in in_step(batches, lm.rounds(len(batches))):
            packed = pack(batch, pad_id=lm.pad_id, device=lm.device)
            states = lm.states(
                packed.tokens_RL,
                positions_BT=packed.positions_RL,
                attend=packed.attend_RLL,
                layers=layers,
                lower_BTD=placed(lm, batch, packed, known, counts=counts) if spared else None,
            )
            if not counts:
                continue
            if keep:
                lower_RLD = states.pop(1)
                for group, (row, first) in zip(batch, packed.spans, strict=True):
                    made[group.indices] = lower_RLD[row, first : first + group.n_tokens].clone()
            flat = [s.flatten(0, 1) for s in states]
            at = packed.mask_NT
            chosen = packed.tokens_RL.flatten()[packed.places_NT[at]]
            if log_probs_too:
                found = selected_log_probs(flat[-1][packed.sources_NT[at]], weight_VD, chosen, temperature)
                rows = torch.zeros(at.shape, device=lm.device)
                rows[at] = found
                log_probs[packed.indices_N, : at.shape[1]] = rows
            features_NF[packed.indices_N] = features_of(flat, packed, lm.eos_id)
            done += len(packed.indices_N)
            if progress is not None:
                progress(done, len(answers))
    return Looked(log_probs, features_NF, known or made)


def features_of(flat: list[Tensor], packed: Packed, eos_id: int) -> Tensor:
    """The mean state of the middle layer and the last state of the final one, N x 2D, over tokens but EOS.

    The mean tells which words were used, the last state how the answer ends. An empty answer's are those of the
    prompt's last token, which said to say nothing.
    """
    middle, final = flat
    tokens_NT = packed.tokens_RL.flatten()[packed.places_NT]
    content = packed.mask_NT & (tokens_NT != eos_id)
    empty_N1 = ~content.any(1, keepdim=True)
    places_NT = torch.where(empty_N1, packed.sources_NT, packed.places_NT)
    content[:, :1] |= empty_N1
    weights = content.float()
    rows = torch.arange(len(weights), device=weights.device)
    last_N = (weights * torch.arange(1, content.shape[1] + 1, device=weights.device)).argmax(1)
    mean_ND = (middle[places_NT].float() * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
    return torch.cat([mean_ND, final[places_NT[rows, last_N]].float()], dim=1)
