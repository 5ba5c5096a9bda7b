"""Labels that can be used: what can't is dropped and counted, and what one rater said twice counts once.

The reasons: `unreadable` (text that is no Unicode, or holds a NUL), `too_long`, `empty`, `identical`, `not_finite` (a
weight that is no number), `weightless`, `repeated` (a rater's other words on the same texts), `one_sided` (thumbs that
all point the same way: they say what was shown, not what is better).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from trainer.core.labels import PairRow, R, RatingRow, Row, Turn, rater_of, texts_of

_UNREADABLE = re.compile("[\0\ud800-\udfff]")
"""NUL, and halves of characters, which no UTF-8 can hold."""


def usable(rows: Iterable[R], dropped: Counter[str], *, max_chars: int) -> list[R]:
    """The rows that can be read and weigh something; `dropped` counts the others by their reason."""
    found: list[R] = []
    for row in rows:
        reason = _flaw(row, max_chars)
        if reason is None:
            found.append(row)
        else:
            dropped[reason] += 1
    return found


def is_usable(row: Row, *, max_chars: int) -> bool:
    """Whether a row can be read and weighs something."""
    return _flaw(row, max_chars) is None


def usable_prompts(prompts: Mapping[str, tuple[Turn, ...]], *, max_chars: int) -> dict[str, tuple[Turn, ...]]:
    """The prompts that can be read."""
    return {i: turns for i, turns in prompts.items() if _text_flaw([i, *_texts(turns)], max_chars) is None and turns}


def _flaw(row: Row, max_chars: int) -> str | None:
    texts = texts_of(row)
    reason = _text_flaw([row.id, row.prompt_id, row.rater or "", *_texts(row.prompt), *texts], max_chars)
    if reason is not None:
        return reason
    if not row.prompt or any(not text.strip() for text in texts):
        return "empty"
    if isinstance(row, PairRow) and row.chosen == row.rejected:
        return "identical"
    if not math.isfinite(row.weight):
        return "not_finite"
    return None if row.weight > 0 else "weightless"


def _texts(turns: Iterable[Turn]) -> list[str]:
    return [text for turn in turns for text in turn]


def _text_flaw(texts: Sequence[str], max_chars: int) -> str | None:
    if sum(map(len, texts)) > max_chars:
        return "too_long"
    return "unreadable" if any(_UNREADABLE.search(text) for text in texts) else None


def netted_pairs(rows: Sequence[PairRow], dropped: Counter[str]) -> list[PairRow]:
    """One pair for all that a rater said of two answers to a prompt."""
    return _netted(
        rows,
        what=lambda r: (rater_of(r), r.prompt_id, *sorted((r.chosen, r.rejected))),
        side=lambda r: r.chosen > r.rejected,
        dropped=dropped,
    )


def netted_ratings(rows: Sequence[RatingRow], dropped: Counter[str]) -> list[RatingRow]:
    """One thumb for all that a rater said of an answer to a prompt."""
    return _netted(
        rows, what=lambda r: (rater_of(r), r.prompt_id, r.completion), side=lambda r: r.label, dropped=dropped
    )


def _netted(
    rows: Sequence[R], *, what: Callable[[R], tuple[str, ...]], side: Callable[[R], bool], dropped: Counter[str]
) -> list[R]:
    """One row for all that a rater said of the same texts: the heaviest row of the side that prevails."""
    groups: dict[tuple[str, ...], list[R]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: (-r.weight, r.id)):
        groups[what(row)].append(row)
    found: list[R] = []
    for group in groups.values():
        ayes, noes = ([r for r in group if side(r) is wanted] for wanted in (True, False))
        strength = (ayes[0].weight if ayes else 0.0) - (noes[0].weight if noes else 0.0)
        if strength:
            found.append(replace((ayes if strength > 0 else noes)[0], weight=abs(strength)))
        dropped["repeated"] += len(ayes) + len(noes) - (1 if strength else 0)
    return found


def two_sided(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    """The rows without the thumbs where these all point the same way: no model of what is better comes of such."""
    verdicts = {row.label for row in rows if isinstance(row, RatingRow)}
    if len(verdicts) != 1:
        return list(rows)
    kept: list[Row] = [row for row in rows if isinstance(row, PairRow)]
    dropped["one_sided"] += len(rows) - len(kept)
    return kept
