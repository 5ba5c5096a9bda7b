"""The rows of a version that count: the latest revision of each id, without those that were retracted.

Two passes: the narrow columns of all rows decide, then only the wide columns of what was chosen are kept. For a
table without revisions every row counts.
"""

from collections.abc import Iterable, Sequence

import polars as pl

from infra.lake.catalog import Snapshot, bounds


def survivors(snapshot: Snapshot, *, also: Sequence[str] = (), paths: Sequence[str] | None = None) -> pl.DataFrame:
    """Key, revision and the columns in `also` of each row that counts, in order of key."""
    key = snapshot.table.key
    if not snapshot.has_revisions:
        return snapshot.scan(paths).select(list(dict.fromkeys([key, *also]))).collect()
    columns = list(dict.fromkeys([key, "revision", "retracted", *also]))
    newest = _newest(snapshot.scan(paths).select(columns), key)
    return newest.filter(~pl.col("retracted")).sort(key).select(list(dict.fromkeys([key, "revision", *also]))).collect()


def count(snapshot: Snapshot) -> int:
    """How many rows count."""
    return survivors(snapshot).height if snapshot.has_revisions else snapshot.total("num_records")


def rows(snapshot: Snapshot, chosen: pl.DataFrame, *, paths: Sequence[str] | None = None) -> pl.DataFrame:
    """The whole rows of `chosen` (from `survivors`), in order of key. Files that can't hold one are not read."""
    key = snapshot.table.key
    if chosen.is_empty():
        return pl.DataFrame(schema=snapshot.schema)
    on = [key, "revision"] if snapshot.has_revisions else [key]
    low, high = bounds(chosen.get_column(key).to_list())
    files = snapshot.between(key, low, high) if paths is None else paths
    found = snapshot.scan(files).join(chosen.lazy().select(on).unique(), on=on, how="semi")
    if snapshot.has_revisions:
        found = found.unique(subset=on, keep="any")
    return found.sort(key, maintain_order=True).collect()


def by_keys(
    snapshot: Snapshot, keys: Iterable[str], columns: Sequence[str], *, paths: Sequence[str] | None = None
) -> pl.DataFrame:
    """Some columns of every stored row whose key is one of `keys`."""
    wanted = sorted(set(keys))
    if not wanted:
        return pl.DataFrame(schema={c: snapshot.schema[c] for c in columns})
    near = snapshot.between(snapshot.table.key, wanted[0], wanted[-1])
    files = near if paths is None else [p for p in paths if p in set(near)]
    return snapshot.scan(files).select(columns).filter(pl.col(snapshot.table.key).is_in(wanted)).collect()


def newest(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """The highest revision of each key, retracted ones as well."""
    return _newest(frame.lazy(), key).collect()


def _newest(frame: pl.LazyFrame, key: str) -> pl.LazyFrame:
    return frame.sort("revision").unique(subset=[key], keep="last", maintain_order=True)
