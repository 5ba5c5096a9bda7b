"""What a table on disk lacks of its definition: columns that a later release has added.

Additive only. A column that the definition has and the table has not is added where it may be null, the same inside
of structs; a column that may be null by now gives up its NOT NULL. A column that the definition no longer has stays.
Whatever else differs is refused: no reader of the older rows could be right about them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable, Field, Schema

from schemas.errors import SettingsError
from schemas.tables import Table


@dataclass(frozen=True, slots=True)
class Additions:
    """What a stored schema needs: columns to add or to widen (top level), and columns that may be null from now on."""

    columns: tuple[Field, ...] = ()
    nullable: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.columns or self.nullable)

    @property
    def names(self) -> list[str]:
        """The columns that are touched."""
        return [*(column.name for column in self.columns), *self.nullable]


def additions(table: Table, stored: Schema) -> Additions:
    """What `stored` lacks; raises `SettingsError` for a difference that is not additive."""
    have = {f["name"]: f for f in json.loads(stored.to_json())["fields"]}
    wanted = json.loads(table.delta_schema())["fields"]
    problems = list(_clashes(wanted, have, ""))
    if problems:
        raise SettingsError(
            f"{table.path}: {'; '.join(problems)}. This release can't read or write that table: make it again with"
            " `thumbwheel tables rebuild` if it is silver or gold, or use a new data folder"
        )
    columns = [f for f in wanted if f["name"] not in have or _lacks(f["type"], have[f["name"]]["type"])]
    nullable = [f["name"] for f in wanted if f["name"] in have and f["nullable"] and not have[f["name"]]["nullable"]]
    return Additions(tuple(Field.from_json(json.dumps(f)) for f in columns), tuple(nullable))


def add(handle: DeltaTable, missing: Additions) -> None:
    """Change the stored schema; raises `CommitFailedError` where another process has changed it meanwhile."""
    if missing.columns:
        handle.alter.add_columns(list(missing.columns))
    for column in missing.nullable:
        handle.alter.drop_column_not_null(column)


def is_wider(table: Table, stored: Schema) -> bool:
    """Whether the stored schema has columns that this release doesn't know: a later one has opened the table."""
    have, known = json.loads(stored.to_json()), json.loads(table.delta_schema())
    names = {f["name"] for f in known["fields"]}
    return any(f["name"] not in names for f in have["fields"]) or any(
        _lacks(f["type"], k["type"]) for f in have["fields"] for k in known["fields"] if k["name"] == f["name"]
    )


def _clashes(wanted: list[dict[str, Any]], have: Mapping[str, dict[str, Any]], inside: str) -> Iterator[str]:
    """The differences that can't be mended, each in a few words."""
    for column in wanted:
        name = f"{inside}{column['name']}"
        if column["name"] not in have:
            if not column["nullable"]:
                yield f"it has no column {name}, which may not be null"
            continue
        yield from _type_clashes(column["type"], have[column["name"]]["type"], name)


def _type_clashes(wanted: Any, have: Any, name: str) -> Iterator[str]:
    if not isinstance(wanted, dict) or not isinstance(have, dict) or wanted["type"] != have["type"]:
        if wanted != have:
            yield f"column {name} is {_named(have)}, not {_named(wanted)}"
    elif wanted["type"] == "struct":
        yield from _clashes(wanted["fields"], {f["name"]: f for f in have["fields"]}, f"{name}.")
    else:
        for part in ("elementType", "keyType", "valueType"):
            if part in wanted:
                yield from _type_clashes(wanted[part], have[part], name)


def _lacks(wanted: Any, have: Any) -> bool:
    """Whether a struct somewhere inside of `have` lacks a field of `wanted`."""
    if not isinstance(wanted, dict):
        return False
    if wanted["type"] == "struct":
        held = {f["name"]: f["type"] for f in have["fields"]}
        return any(f["name"] not in held or _lacks(f["type"], held[f["name"]]) for f in wanted["fields"])
    return any(_lacks(wanted[part], have[part]) for part in ("elementType", "valueType") if part in wanted)


def _named(kind: Any) -> str:
    return kind["type"] if isinstance(kind, dict) else str(kind)
