"""Which labels are the newest, found from ids and times alone."""

from dataclasses import dataclass

import polars as pl

from schemas import tables


@dataclass(frozen=True)
class Taken:
    """Key, revision and time of the newest ratings and pairs; `older` is how many labels are left."""

    ratings: pl.DataFrame
    pairs: pl.DataFrame
    older: int


def newest_of(ratings: pl.DataFrame, pairs: pl.DataFrame, limit: int) -> Taken:
    """The newest `limit` of both together (of the same moment, the lower id first): key, revision, judged_at."""
    named = [
        frame.rename({table.key: "id"}).with_columns(pl.lit(table.name).alias("table"))
        for table, frame in ((tables.RATINGS, ratings), (tables.PREFERENCES, pairs))
    ]
    both = pl.concat(named).sort(["judged_at", "id"], descending=[True, False])
    newest = both.head(limit)
    rated, compared = (
        newest.filter(pl.col("table") == table.name).rename({"id": table.key}).drop("table")
        for table in (tables.RATINGS, tables.PREFERENCES)
    )
    return Taken(rated, compared, both.height - newest.height)
