"""Weights of a domain's own, beside the common ones and drawn towards them.

A domain's score is x · (w + v): w are the common weights, fitted on the labels of all domains as if there were none,
and v the domain's difference from them (Evgeniou & Pontil 2004, "Regularized multi-task learning", section 2). v
minimizes the domain's part of the common loss plus 0.5 * l2 * |v|^2: maximum a posteriori under a Gaussian prior around
the common model (Chelba & Acero 2004, "Adaptation of maximum entropy capitalizer", section 3.1). The loss grows with a
domain's labels and the penalty does not, so few labels leave it near the common model and many bring it to its own.

Fitted after w and not together with it: whoever is in no domain gets what they would get without domains, no domain
moves another one's scores, and the cost grows with the labels, not with their product with the domains.

- The level (bias) and the effect of length may differ too, at the same price; of these the effect of length is left out
  of the scores, as the common one is. Raters' offsets are fitted beside v and thrown away.
- One l2 for all domains, chosen by the loss on held-out folds; among the choices is infinity, which is no v at all.
- Who may have one: a domain of enough labels by enough people. Within it nobody's labels weigh more than twice a fair
  share, and all whose name is not known are one person: else anybody could make a domain and steer its reward. Labels
  count by the weight that this leaves to them.
- The heads keep their bootstrap weights, so where a domain's data are thin its heads spread.

Left out: an own temperature, standardization or trunk of a domain, which take more labels than a domain has.

Shapes: N answers, M of them with one domain each, F features, H heads (or choices of l2), D domains, P pairs,
R ratings, K answers of one domain, C directions of theirs, L length covariates, U raters, G prompts.
"""

# torch leaves some of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.core.domains import COMMON
from trainer.core.losses import bradley_terry, thumbs_loss
from trainer.core.reward_data import UNKNOWN_RATER, OwnLabels, RewardData, of_answers
from trainer.core.reward_fit import (
    CrossFitted,
    Fit,
    RewardConfig,
    fit,
    kind_shares,
    label_weights,
    length_terms,
    seen_without,
)
from trainer.core.weights import capped

MOST_DOMAINS = 64
"""With weights of their own: those with most labels. Of 16 heads on 1,000 features that is 4 MB."""
NEVER = float("inf")
"""The strength at which no domain has weights of its own."""


@dataclass(frozen=True)
class Crowd:
    """Who speaks in a domain. `counted` are its labels by the weight that the people's caps leave to them."""

    name: str
    labels: int
    counted: float
    users: int
    """Those whose name is not known are one."""
    own: bool
    """Whether it has weights of its own."""


@dataclass(frozen=True)
class Own:
    """What each domain's weights add to the common ones. Numbers of domains are rows here; -1 is in none."""

    names: tuple[str, ...]
    weight_DFH: Tensor
    bias_DH: Tensor
    length_DLH: Tensor

    def added(self, x_NF: Tensor, domains_N: Tensor) -> Tensor:
        """To the scores N,H of standardized features."""
        return _by_domain(x_NF, self.weight_DFH, domains_N) + _by_domain(
            torch.ones(len(x_NF), 1), self.bias_DH[:, None], domains_N
        )

    def effect(self, whole: Fit, lengths_N: Tensor, domains_N: Tensor) -> Tensor:
        """To the effect of length N,H."""
        return _by_domain(_terms(whole, lengths_N), self.length_DLH, domains_N)


def _by_domain(rows_NA: Tensor, weight_DAH: Tensor, domains_N: Tensor) -> Tensor:
    """Each row times the weights of its domain; zero for those in none."""
    found_NH = rows_NA.new_zeros(len(rows_NA), weight_DAH.shape[2])
    for domain in domains_N.unique().tolist():
        if domain >= 0:
            rows = domains_N == domain
            found_NH[rows] = rows_NA[rows] @ weight_DAH[domain]
    return found_NH


def _terms(whole: Fit, lengths_N: Tensor) -> Tensor:
    effect = whole.length
    return torch.zeros(len(lengths_N), 2) if effect is None else length_terms(lengths_N, effect.center, effect.scale)


def one_domain_each(data: RewardData) -> tuple[RewardData, Tensor, tuple[str, ...]]:
    """Answers with labels of two domains twice, at the end: the data, the row M that each comes from, and its domain.

    The same data where that is nowhere the case, or where domains are not told apart.
    """
    n = len(data.features_NF)
    if data.domains is None:
        return data, torch.arange(n), (COMMON,) * n
    names: dict[int, str] = {}
    again: dict[tuple[int, str], int] = {}

    def place(row: int, name: str) -> int:
        if names.setdefault(row, name) == name:
            return row
        return again.setdefault((row, name), n + len(again))

    labelled = zip(data.pairs_P2.tolist(), data.domains.names_P, strict=True)
    pairs = [[place(row, name) for row in rows] for rows, name in labelled]
    rated = [place(row, name) for row, name in zip(data.rated_R.tolist(), data.domains.names_R, strict=True)]
    rows_M = torch.cat([torch.arange(n), torch.tensor([row for row, _ in again], dtype=torch.long)])
    names_M = (*(names.get(row, COMMON) for row in range(n)), *(name for _, name in again))
    if not again:
        return data, rows_M, names_M
    made = replace(
        data,
        features_NF=data.features_NF[rows_M],
        lengths_N=data.lengths_N[rows_M],
        groups_N=data.groups_N[rows_M],
        pairs_P2=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        rated_R=torch.tensor(rated, dtype=torch.long),
    )
    return made, rows_M, names_M


def numbers_of(names_N: Sequence[str], names: Sequence[str]) -> Tensor:
    """Each answer's domain by its number in `names`, -1 where it is not among them."""
    number = {name: n for n, name in enumerate(names)}
    return torch.tensor([number.get(name, -1) for name in names_N], dtype=torch.long)


def prepared(data: RewardData, config: RewardConfig) -> tuple[RewardData, Tensor, tuple[Crowd, ...]]:
    """The data with what domains of their own learn from (`RewardData.own`), the row M that each answer was, and who
    speaks in each domain, by name. Without domains the data as they are."""
    made, rows_M, names_M = one_domain_each(data)
    if made.domains is None:
        return made, rows_M, ()
    weights_P, weights_R = torch.zeros(len(made.pairs_P2)), torch.zeros(len(made.rated_R))
    crowds = [_crowd(made, name, config, weights_P, weights_R) for name in sorted(set(names_M) - {COMMON})]
    enough = sorted((c for c in crowds if c.own), key=lambda c: (-c.counted, c.name))
    names = tuple(sorted(c.name for c in enough[:MOST_DOMAINS]))
    own = OwnLabels(names, numbers_of(names_M, names), weights_P, weights_R)
    crowds = [replace(c, own=c.name in names) for c in crowds]
    return replace(made, own=own if names else None), rows_M, tuple(crowds)


def _crowd(data: RewardData, name: str, config: RewardConfig, weights_P: Tensor, weights_R: Tensor) -> Crowd:
    """Who speaks in a domain; fills in what its labels weigh in it."""
    assert data.domains is not None
    at_P, at_R = (_where(names, name) for names in (data.domains.names_P, data.domains.names_R))
    firsts_P, others_P = data.pair_raters()[at_P].tolist(), data.domains.others_P[at_P].tolist()
    behind_P = [[a] if b == UNKNOWN_RATER else sorted({a, b}) for a, b in zip(firsts_P, others_P, strict=True)]
    behind_R = [[a] for a in data.raters()[at_R].tolist()]
    counted = _cap(behind_P, data.pair_weights_P, weights_P, at_P)
    counted += _cap(behind_R, data.rating_weights_R, weights_R, at_R)
    users = len({person for some in (*behind_P, *behind_R) for person in some})
    enough = counted >= config.domain_labels and users >= config.domain_users
    return Crowd(name, len(at_P) + len(at_R), counted, users, enough)


def _where(names: Sequence[str], name: str) -> Tensor:
    return torch.tensor([n for n, found in enumerate(names) if found == name], dtype=torch.long)


def _cap(behind: Sequence[Sequence[int]], given: Tensor, into: Tensor, at: Tensor) -> float:
    """Write the weights `at` these labels with nobody above twice a fair share; how many labels that is in effect."""
    weighing = [n for n, weight in enumerate(given[at].tolist()) if weight > 0]
    raw = [float(given[at[n]]) for n in weighing]
    cut = [0.0 if w is None else w for w in capped([behind[n] for n in weighing], raw, 0.0)]
    into[at[weighing]] = torch.tensor(cut)
    return len(raw) * sum(cut) / sum(raw) if raw else 0.0


@dataclass(frozen=True)
class _Part:
    """One domain's labels; rows count within its K answers. Weights are shares of the whole loss."""

    x_KF: Tensor
    terms_KL: Tensor
    base_KH: Tensor
    pairs_P2: Tensor
    pair_PH: Tensor
    rated_R: Tensor
    labels_R: Tensor
    rated_RH: Tensor
    raters_R: Tensor
    prior: float
    """Of the squared offsets."""


def fit_own(data: RewardData, config: RewardConfig, whole: Fit, l2_H: Tensor, weights_GH: Tensor) -> Own | None:
    """The differences of all domains in `data.own` from `whole`, at strengths `l2_H`; None where there are none.

    Convex, so it depends on data, strength and bootstrap weights only. A domain without a label is as the common one.
    """
    if data.own is None or not bool(l2_H.isfinite().all()):
        return None
    x_NF, heads = whole.standardizer(data.features_NF), weights_GH.shape[1]
    terms_NL = _terms(whole, data.lengths_N)
    base_NH = x_NF @ whole.weight_FH + whole.bias_H
    if whole.length is not None:
        base_NH = base_NH + terms_NL @ whole.length.weight_LH
    base_NH = base_NH.expand(-1, heads)
    pair_PH, rated_RH, prior = _own_weights(data, config, weights_GH)
    found = Own(
        data.own.names,
        torch.zeros(len(data.own.names), x_NF.shape[1], heads),
        torch.zeros(len(data.own.names), heads),
        torch.zeros(len(data.own.names), 2, heads),
    )
    for domain in range(len(data.own.names)):
        part = _part(data, domain, x_NF, terms_NL, base_NH, pair_PH, rated_RH, prior)
        if float(part.pair_PH.sum() + part.rated_RH.sum()) > 0:
            parts = _fit_part(part, config, l2_H, length=whole.length is not None)
            found.weight_DFH[domain], found.bias_DH[domain], found.length_DLH[domain] = parts
    return found


def _own_weights(data: RewardData, config: RewardConfig, weights_GH: Tensor) -> tuple[Tensor, Tensor, float]:
    """As `label_weights`, in the same units, with nobody above the share that a domain leaves to one person."""
    assert data.own is not None
    _, _, prior = label_weights(data, config, weights_GH)
    pair_share, rated_share = kind_shares(data, config)
    groups_P, groups_R = data.groups_N[data.pairs_P2[:, 0]], data.groups_N[data.rated_R]
    all_PH, all_RH = (
        given[:, None] * weights_GH[groups]
        for given, groups in ((data.pair_weights_P, groups_P), (data.rating_weights_R, groups_R))
    )
    pair_PH = pair_share * data.own.weights_P[:, None] * weights_GH[groups_P] / all_PH.sum(0).clamp(min=1e-12)
    rated_RH = rated_share * data.own.weights_R[:, None] * weights_GH[groups_R] / all_RH.sum(0).clamp(min=1e-12)
    return pair_PH, rated_RH, prior


def _part(
    data: RewardData, domain: int, x_NF: Tensor, terms_NL: Tensor, base_NH: Tensor, pair_PH: Tensor, rated_RH: Tensor,
    prior: float,
) -> _Part:  # fmt: skip
    assert data.own is not None
    here_N = data.own.domains_N == domain
    at_P, at_R = here_N[data.pairs_P2[:, 0]], here_N[data.rated_R]
    rows_K = here_N.nonzero().squeeze(1)
    raters_R = data.raters()[at_R]
    known = raters_R[raters_R >= 0].unique()
    numbered_R = torch.where(raters_R >= 0, torch.searchsorted(known, raters_R), UNKNOWN_RATER)
    return _Part(
        x_KF=x_NF[rows_K],
        terms_KL=terms_NL[rows_K],
        base_KH=base_NH[rows_K],
        pairs_P2=torch.searchsorted(rows_K, data.pairs_P2[at_P]),
        pair_PH=pair_PH[at_P],
        rated_R=torch.searchsorted(rows_K, data.rated_R[at_R]),
        labels_R=data.labels_R[at_R],
        rated_RH=rated_RH[at_R],
        raters_R=numbered_R,
        prior=prior,
    )


def _fit_part(part: _Part, config: RewardConfig, l2_H: Tensor, *, length: bool) -> tuple[Tensor, Tensor, Tensor]:
    """v F,H, its level H and its effect of length L,H; full-batch L-BFGS."""
    basis_FC = _span(part.x_KF)
    x_KC = part.x_KF if basis_FC is None else part.x_KF @ basis_FC
    heads, n_raters = part.base_KH.shape[1], 0
    if len(part.raters_R) and config.rater_spread > 0:
        n_raters = int(part.raters_R.max()) + 1
    shapes = ((x_KC.shape[1], heads), (1, heads), (part.terms_KL.shape[1], heads), (n_raters, heads))
    own_CH, level_1H, length_LH, offset_UH = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    fitted = [own_CH, level_1H, *([length_LH] if length else []), *([offset_UH] if n_raters else [])]
    steps = max(1, config.max_steps // 2)  # it begins near its end
    optimizer = torch.optim.LBFGS(fitted, max_iter=steps, history_size=10, line_search_fn="strong_wolfe")
    scale = heads / float(part.pair_PH.sum() + part.rated_RH.sum())  # else a small domain's gradient is none at all

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores_KH = part.base_KH + x_KC @ own_CH + level_1H + part.terms_KL @ length_LH
        squares_H = own_CH.square().sum(0) + level_1H.square().sum(0) + length_LH.square().sum(0)
        value = 0.5 * (l2_H * squares_H).sum() + part.prior * offset_UH.square().sum()
        value = scale * (value + _loss(part, config, scores_KH, offset_UH))
        value.backward()
        return value

    optimizer.step(closure)
    own_FH = own_CH.detach() if basis_FC is None else basis_FC @ own_CH.detach()
    return own_FH, level_1H.detach()[0], length_LH.detach()


def _span(x_KF: Tensor) -> Tensor | None:
    """C orthonormal directions F,C that hold all rows: the best v lies among them, and is as long in their terms.

    So there is less to compute. None where there are no fewer answers than features.
    """
    answers, features = x_KF.shape
    return None if answers >= features else torch.linalg.qr(x_KF.T).Q


def _loss(part: _Part, config: RewardConfig, scores_KH: Tensor, offset_UH: Tensor) -> Tensor:
    """The part's share of `reward_fit.loss`, without any prior."""
    chosen, rejected = part.pairs_P2.unbind(1)
    logits_RH = scores_KH[part.rated_R]
    if len(offset_UH):
        logits_RH = logits_RH + offset_UH[part.raters_R.clamp(min=0)] * (part.raters_R >= 0)[:, None]
    pairs = bradley_terry(scores_KH[chosen] - scores_KH[rejected], part.pair_PH, smoothing=config.smoothing)
    return pairs + thumbs_loss(logits_RH, part.labels_R, part.rated_RH, smoothing=config.smoothing)


def choose_own(
    data: RewardData, config: RewardConfig, l2: float, fold_N: Tensor, cross: CrossFitted | None = None
) -> float:
    """The strength with the least loss on the domains' held-out labels over folds of prompts; `NEVER` where none is
    better than the common weights alone. As in `choose_l2`, one head without bootstrap, and length is left in.
    """
    if data.own is None:
        return NEVER
    grid = sorted(config.l2_grid, reverse=True)
    ones = torch.ones(int(data.groups_N.max()) + 1, len(grid))
    losses_H = torch.zeros(1 + len(grid), dtype=torch.float64)
    for fold in sorted(set(fold_N.tolist()) - {-1}):
        seen = seen_without(data, fold, cross)
        train, test = of_answers(seen, fold_N != fold), of_answers(seen, fold_N == fold)
        if min(len(train), len(test)) == 0:
            continue
        common = fit(train, config, l2, ones[:, :1])
        own = fit_own(train, config, common, torch.tensor(grid), ones)
        losses_H += _held_out_loss(test, config, common, own, ones)
    return (NEVER, *grid)[int(losses_H.argmin())]


def _held_out_loss(test: RewardData, config: RewardConfig, common: Fit, own: Own | None, ones_GH: Tensor) -> Tensor:
    """Of the labels in domains, at their weights there: by the common weights, then for each strength."""
    assert test.own is not None and own is not None
    x_NF, domains_N = common.standardizer(test.features_NF), test.own.domains_N
    scores_NH, added_NH = x_NF @ common.weight_FH + common.bias_H, own.added(x_NF, domains_N)
    if common.length is not None:
        scores_NH = scores_NH + common.length(test.lengths_N)
        added_NH = added_NH + own.effect(common, test.lengths_N, domains_N)
    scores_NH = torch.cat([scores_NH, scores_NH + added_NH], 1)
    pair_PH, rated_RH, _ = _own_weights(test, config, ones_GH[:, :1])
    columns = range(scores_NH.shape[1])
    margins_PH = scores_NH[test.pairs_P2[:, 0]] - scores_NH[test.pairs_P2[:, 1]]
    logits_RH = scores_NH[test.rated_R]
    pairs = [bradley_terry(margins_PH[:, [n]], pair_PH, smoothing=config.smoothing) for n in columns]
    rated = [thumbs_loss(logits_RH[:, [n]], test.labels_R, rated_RH, smoothing=config.smoothing) for n in columns]
    return (torch.stack(pairs) + torch.stack(rated)).double()
