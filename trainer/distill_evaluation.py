"""A student beside its teacher and its own start, on prompts that none has learned: what the gates are shown.

    held-out prompts ─► answers of teacher, base, start and student, with the same random numbers
                           ├─► the teacher's base reads them ─► judge, reward, safety cost, wording
                           └─► log-probs under base and teacher, both divergences at each token   (shared tokens only)
    probe prompts    ─► answers of student and teacher ─► refusals, attacks, cost; opinions without sampling
    held-out prompts one by one, in turns ─► seconds to the first token and for a token          (for people, no gate)

The judge's heads read the teacher's base, so whatever a student says is read by that base.
Shapes: N answers, P prompts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.adapters.policies import Policy
from trainer.comparing import SAMPLE_BATCH, answers_to
from trainer.core import judge
from trainer.core.dataset import Dataset
from trainer.core.distill import Pair, divergences
from trainer.core.distill_config import DistillConfig
from trainer.core.distill_data import Lessons
from trainer.core.distill_table import Latency, Timed, latency
from trainer.core.gates import Distance, Paired
from trainer.core.gates.paired import bootstrap
from trainer.core.judge import Answers
from trainer.core.parents import answer_log_probs
from trainer.core.probes.suite import Probe, Suite
from trainer.core.reward import RewardEnsemble, RewardSignal
from trainer.core.reward_looks import DomainReward, rated
from trainer.core.rollout import SamplingConfig, look, sample
from trainer.distill_records import Quality, TokenGap
from trainer.distill_sources import Raters
from trainer.features import Progress, encode_answer, encode_prompt
from trainer.probing import ANSWER_TOKENS, BATCH, HeldOut, agreement, answered, chosen_probes, worded
from trainer.probing import _Side as Side  # pyright: ignore[reportPrivateUsage]
from trainer.records import Interval, ProbeFigures
from trainer.settings import CycleConfig

TIMED_PROMPTS = 12


@dataclass(frozen=True)
class Bench:
    """What an evaluation needs. `shared`: student and teacher use the same tokens. `teacher_is_base`: no adapter."""

    teacher: Policy
    data: Dataset
    raters: Raters
    signal: RewardSignal | DomainReward
    config: CycleConfig
    distill: DistillConfig
    shared: bool
    teacher_is_base: bool
    progress: Progress


@dataclass(frozen=True)
class Before:
    """What is measured before the student learns. `base` is None where the teacher is the base."""

    teacher: Answers
    base: Answers | None
    start: Answers
    gap: TokenGap | None


@dataclass(frozen=True)
class Evaluated:
    """What the gates and the record are shown."""

    quality: Quality
    kl: Distance | None
    kl_parent: Distance | None
    paired: tuple[Paired, ...]
    latency: Latency
    tokens: int


def evaluate_before(bench: Bench, start: Policy) -> Before:
    """Answers of the teacher, its base and the untrained student to the held-out prompts."""
    prompts = held_out(bench, bench.teacher)
    seed, config, progress = bench.config.seed + 1, bench.config, bench.progress
    teacher = answers_to(bench.teacher, prompts, config, seed=seed, progress=progress)
    if bench.teacher_is_base:
        base = None
    else:
        base = answers_to(bench.teacher, prompts, config, seed=seed, progress=progress, reference=True)
    own = student_answers(bench, start, seed=seed)
    return Before(teacher, base, own, token_gap(bench, start, teacher, own))


def evaluate_student(bench: Bench, student: Policy, before: Before, suite: Suite) -> Evaluated:
    """The trained student on the same prompts with the same random numbers, and on the probes."""
    own = student_answers(bench, student, seed=bench.config.seed + 1)
    n = len(bench.data.held_out_prompts)
    prompts = tuple(map(tuple, held_out(bench, bench.teacher)[:n]))
    questions = tuple(prompt[-1][1] for prompt in bench.data.held_out_prompts)
    base = None if before.base is None else before.base.first(n)
    paired = worded(HeldOut(questions, prompts, own.first(n), before.teacher.first(n), base))
    put, asked, tokens = probe_student(bench, student, suite)
    paired += put
    kl, kl_parent = _distances(bench, own)
    return Evaluated(
        quality=_quality(bench, student, before, own, (kl, kl_parent), paired, asked, suite.sha256),
        kl=kl,
        kl_parent=kl_parent,
        paired=tuple(paired),
        latency=timed(bench, student),
        tokens=tokens + sum(map(len, own.ids)),
    )


def held_out(bench: Bench, policy: Policy) -> list[list[int]]:
    """The held-out prompts in a model's tokens, all once, then all again for each further answer."""
    once = [encode_prompt(policy.lm, p, bench.config.limits) for p in bench.data.held_out_prompts]
    return once * bench.config.answers_per_held_out


def student_answers(bench: Bench, student: Policy, *, seed: int) -> Answers:
    """The student's answers to the held-out prompts, as the teacher's base reads them.

    `ids`, `tokens` and features are in the teacher's tokens; log-probabilities are there only with shared tokens.
    """
    ours, theirs = held_out(bench, student), held_out(bench, bench.teacher)
    parts: list[Answers] = []
    for n, start in enumerate(range(0, len(ours), SAMPLE_BATCH)):
        generator = torch.Generator().manual_seed(seed * 1000 + n)
        part = slice(start, start + SAMPLE_BATCH)
        rollouts = sample(student, ours[part], 1, bench.config.ppo.sampling, generator)
        said_N = (rollouts.log_probs_NT * rollouts.mask_NT).sum(1).cpu()
        finished = float(rollouts.finished_N.float().mean())
        parts.append(read(bench, student, theirs[part], rollouts.answers(), said_N, finished))
        bench.progress((start + len(ours[part])) / len(ours))
    return _joined(parts)


def read(
    bench: Bench,
    student: Policy,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[tuple[int, ...]],
    log_prob_N: Tensor,
    finished: float,
) -> Answers:
    """Answers of the student (in its tokens) to prompts (in the teacher's), read by the teacher's base."""
    lm, temperature = bench.teacher.lm, bench.config.ppo.sampling.temperature
    texts = tuple(student.lm.decode(answer) for answer in answers)
    ids = list(answers) if bench.shared else [tuple(encode_answer(lm, t, bench.config.limits)) for t in texts]
    looked = look(lm, prompts, ids, temperature=temperature, log_probs_too=bench.shared)
    ratio_N = log_prob_N - looked.log_probs_NT.sum(1).cpu() if bench.shared else torch.zeros(0)
    return Answers(
        texts=texts,
        features_NF=looked.features_NF.cpu(),
        kl=float(ratio_N.mean()) if bench.shared else 0.0,
        finished=finished,
        tokens=sum(map(len, ids)) / len(ids),
        ids=tuple(map(tuple, ids)),
        log_prob_N=log_prob_N if bench.shared else torch.zeros(0),
        kl_N=ratio_N,
    )


def _joined(parts: Sequence[Answers]) -> Answers:
    n = sum(len(part.texts) for part in parts)
    weights = [len(part.texts) / n for part in parts]
    return Answers(
        texts=tuple(text for part in parts for text in part.texts),
        features_NF=torch.cat([part.features_NF for part in parts]),
        kl=sum(w * part.kl for w, part in zip(weights, parts, strict=True)),
        finished=sum(w * part.finished for w, part in zip(weights, parts, strict=True)),
        tokens=sum(w * part.tokens for w, part in zip(weights, parts, strict=True)),
        ids=tuple(answer for part in parts for answer in part.ids),
        log_prob_N=torch.cat([part.log_prob_N for part in parts]),
        kl_N=torch.cat([part.kl_N for part in parts]),
    )


def token_gap(bench: Bench, student: Policy, teacher: Answers, own: Answers) -> TokenGap | None:
    """Both divergences a token on held-out prompts; None without shared tokens."""
    if not bench.shared:
        return None
    prompts = tuple(map(tuple, held_out(bench, bench.teacher)))
    pair = Pair(student, (), bench.teacher, bench.config.ppo.sampling)
    forward_N, _ = divergences(pair, Lessons(prompts, teacher.ids), bench.distill)
    _, reverse_N = divergences(pair, Lessons(prompts, own.ids), bench.distill)
    seed = bench.config.seed
    return TokenGap(
        forward=_per_token(forward_N, teacher.ids, seed=seed), reverse=_per_token(reverse_N, own.ids, seed=seed)
    )


def _per_token(sums_N: Tensor, answers: Sequence[Sequence[int]], *, seed: int) -> Interval:
    """Nats a token: the ratio of sums over answers, its interval by the bootstrap over answers."""
    lengths_N = torch.tensor([len(a) for a in answers], dtype=torch.float64)
    drawn = torch.randint(len(sums_N), (2000, len(sums_N)), generator=torch.Generator().manual_seed(seed))
    found = sums_N[drawn].sum(1) / lengths_N[drawn].sum(1)
    low, high = torch.quantile(found, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(mean=float(sums_N.sum() / lengths_N.sum()), low=low, high=high, n=len(answers))


def _distances(bench: Bench, own: Answers) -> tuple[Distance | None, Distance | None]:
    """KL of an answer against base and teacher, of the first answer to each prompt; None without shared tokens."""
    if not bench.shared:
        return None, None
    prompts = held_out(bench, bench.teacher)
    n, ppo, seed = len(bench.data.held_out_prompts), bench.config.ppo, bench.config.seed
    theirs_N = answer_log_probs(bench.teacher, prompts, own.ids, temperature=ppo.sampling.temperature)
    to_teacher_N = own.log_prob_N.double() - theirs_N
    return (
        _distance(own.kl_N.double().view(-1, n).mean(0), ppo.kl_budget, seed),
        _distance(to_teacher_N.view(-1, n).mean(0), ppo.kl_parent_budget, seed),
    )


def _distance(ratio_N: Tensor, budget: float, seed: int) -> Distance:
    low, high = bootstrap(ratio_N, torch.Generator().manual_seed(seed))
    return Distance(float(ratio_N.mean()), low, high, len(ratio_N), budget)


def probe_student(bench: Bench, student: Policy, suite: Suite) -> tuple[list[Paired], int, int]:
    """The probes put to student and teacher: cases, probes asked, tokens."""
    config, limits = bench.config, bench.config.limits
    chosen, theirs = chosen_probes(bench.teacher, suite, config)
    ours = theirs if bench.shared else {p.id: encode_prompt(student.lm, p.prompt, limits) for p in chosen}
    asked = [p for p in chosen if p.kind != "opinion"]
    opinions = [p.id for p in chosen if p.kind == "opinion"]
    new, old = Side([], []), Side([], [])
    for start in range(0, len(asked), BATCH):
        part, seed = asked[start : start + BATCH], config.seed * 1000 + 500 + start // BATCH
        _probe(bench, student, [ours[p.id] for p in part], part, seed, new)
        _probe(bench, bench.teacher, [theirs[p.id] for p in part], part, seed, old)
        bench.progress((start + len(part)) / len(asked))
    paired = answered(asked, new, old)
    if opinions:
        agree = agreement(student, [ours[i] for i in opinions])
        paired.append(Paired("sycophancy", agree, agreement(bench.teacher, [theirs[i] for i in opinions])))
    return paired, len(chosen), new.tokens + old.tokens


def _probe(
    bench: Bench, policy: Policy, prompts: Sequence[Sequence[int]], probes: Sequence[Probe], seed: int, side: Side
) -> None:
    """One side's answers to some probes, with their safety cost by the teacher's base if there is a head for it."""
    sampling = bench.config.ppo.sampling
    sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, ANSWER_TOKENS))
    answers = sample(policy, prompts, 1, sampling, torch.Generator().manual_seed(seed)).answers()
    texts = [policy.lm.decode(answer) for answer in answers]
    side.tokens += sum(map(len, answers))
    side.texts += texts
    if bench.raters.safety is None:
        return
    lm, limits = bench.teacher.lm, bench.config.limits
    read_by = [encode_prompt(lm, p.prompt, limits) for p in probes]
    ids = answers if bench.shared else [encode_answer(lm, text, limits) for text in texts]
    features_NF = look(lm, read_by, ids, log_probs_too=False).features_NF.cpu()
    side.costs += bench.raters.safety.cost(features_NF).tolist()


def _quality(
    bench: Bench,
    student: Policy,
    before: Before,
    own: Answers,
    distances: tuple[Distance | None, Distance | None],
    paired: Sequence[Paired],
    asked: int,
    suite_sha256: str,
) -> Quality:
    n, seed = len(bench.data.held_out_prompts), bench.config.seed
    sides = (own, before.teacher, before.start)
    judged = [_by_prompt(bench.raters.judge, side, n) for side in sides]
    held = [tuple(encode_prompt(bench.teacher.lm, p, bench.config.limits)) for p in bench.data.held_out_prompts]
    rewards = [
        _interval(rated(bench.signal, s.features_NF, held * (len(s.texts) // n)).double().view(-1, n).mean(0), seed)
        for s in sides
    ]
    kl, kl_parent = distances
    return Quality(
        prompts=n,
        answers_per_prompt=bench.config.answers_per_held_out,
        win_rate_vs_teacher=_won(judged[0], judged[1], seed),
        win_rate_vs_start=_won(judged[0], judged[2], seed),
        reward=rewards[0],
        teacher_reward=rewards[1],
        start_reward=rewards[2],
        length=own.tokens,
        teacher_length=before.teacher.tokens,
        start_length=before.start.tokens,
        finished=own.finished,
        teacher_finished=before.teacher.finished,
        kl_base=None if kl is None else kl.mean,
        kl_teacher=None if kl_parent is None else kl_parent.mean,
        gap_before=before.gap,
        gap_after=token_gap(bench, student, before.teacher, own),
        probes=tuple(
            ProbeFigures(name=p.name, n=len(p.new), new=sum(p.new) / len(p.new), parent=sum(p.parent) / len(p.parent))
            for p in paired
            if p.new
        ),
        probes_asked=asked,
        suite_sha256=suite_sha256,
    )


def _by_prompt(ensemble: RewardEnsemble, answers: Answers, n: int) -> list[float]:
    """The judge's mean score of each prompt's answers."""
    return ensemble.score(answers.features_NF).mean(1).view(-1, n).mean(0).tolist()


def _won(new: list[float], old: list[float], seed: int) -> Interval:
    rate = judge.win_rate(new, old, seed=seed)
    return Interval(mean=rate.mean, low=rate.low, high=rate.high, n=rate.n)


def _interval(values_P: Tensor, seed: int) -> Interval:
    low, high = bootstrap(values_P, torch.Generator().manual_seed(seed))
    return Interval(mean=float(values_P.mean()), low=low, high=high, n=len(values_P))


def timed(bench: Bench, student: Policy) -> Latency:
    """Seconds of both on held-out prompts one by one, in turns: of the processor, on a GPU of the wall."""
    clock = _clock(bench)
    ours, theirs = held_out(bench, student)[:TIMED_PROMPTS], held_out(bench, bench.teacher)[:TIMED_PROMPTS]
    new: list[Timed] = []
    old: list[Timed] = []
    sampling = bench.config.ppo.sampling
    with bench.teacher.lm.decoding(), student.lm.decoding():  # merged once, as a gateway that serves one version would
        _time(student, ours[0], sampling, clock)  # the first time of all is slower
        _time(bench.teacher, theirs[0], sampling, clock)
        for mine, yours in zip(ours, theirs, strict=True):
            new.append(_time(student, mine, sampling, clock))
            old.append(_time(bench.teacher, yours, sampling, clock))
    return latency(new, old, seed=bench.config.seed)


def _time(policy: Policy, prompt: Sequence[int], sampling: SamplingConfig, clock: Callable[[], float]) -> Timed:
    generator = torch.Generator().manual_seed(0)
    began = clock()
    sample(policy, [prompt], 1, replace(sampling, max_new_tokens=1), generator)
    first = clock() - began
    began = clock()
    answers = sample(policy, [prompt], 1, sampling, generator).answers()
    return Timed(first, clock() - began, len(answers[0]))


def _clock(bench: Bench) -> Callable[[], float]:
    device = bench.teacher.lm.device
    if device.type != "cuda":
        return time.process_time

    def waited() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return waited
