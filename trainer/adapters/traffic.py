"""Which domain the answers of the lake were served in, and in which domains their prompts were asked."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import polars as pl

from trainer.core.domains import COMMON, By, Traffic
from trainer.core.labels import RatingRow, Turn, prompt_key, rater_of


def traffic_of(
    answers: pl.DataFrame, prompts: Mapping[str, tuple[Turn, ...]], thumbs: Iterable[RatingRow], by: By
) -> Traffic:
    """By the columns response_id, prompt_id and that of `by`; `prompts` are by id, `thumbs` all that are known."""
    if by == "none":
        return Traffic()
    rows = answers.select("response_id", "prompt_id", pl.col(by).fill_null(COMMON))
    keys = {prompt_id: prompt_key(prompt) for prompt_id, prompt in prompts.items()}
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    for prompt_id, domain, n in rows.group_by("prompt_id", by, maintain_order=True).len().iter_rows():
        asked[keys[prompt_id]][domain] += n
    return Traffic(
        answered=dict(rows.select("response_id", by).iter_rows()),
        asked={key: dict(sorted(counts.items())) for key, counts in sorted(asked.items())},
        raters={row.response: rater_of(row) for row in sorted(thumbs, key=lambda row: row.id) if row.response},
    )
