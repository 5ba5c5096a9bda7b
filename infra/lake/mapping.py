"""The mapping file: which column of somebody's log is what, and which of its values is a thumb up or down.

TOML or JSON, all of it optional:

    [columns]                     # ours = theirs; a dot goes into an object, a number into a list
    prompt = "request.messages"
    completion = "response.0.text"
    thumb = "rating"

    [thumb]                       # compared as text, without regard to case
    up = ["up", "1"]
    down = ["down", "0"]
    up_from = 4                   # or numbers: 4 and more is up, 2 and less is down, between them is neither
    down_to = 2

    [verdict]                     # for Label Studio projects that compare by Choices instead of Pairwise
    left = ["A is better"]
    right = ["B is better"]
    tie = ["same"]

    [time]
    format = "%d.%m.%Y %H:%M"     # as in strptime; without it ISO 8601, or Unix seconds or milliseconds
    zone = "Europe/Berlin"        # for times that name none

A column `purposes` holds what the row's person agreed to: `training`, `labeling`, both with a comma or as a list, or
`none`. Where it is empty, the import's own purposes hold.
"""

import json
import tomllib
from collections.abc import Mapping as AnyMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from infra.local.comparisons import BadRow
from schemas.consent import Purpose, Purposes
from schemas.errors import SettingsError
from schemas.labels import Verdict

Field = Literal[
    "prompt", "completion", "thumb", "user", "time", "model", "comment", "correction", "id",
    "chosen", "rejected", "left", "right", "purposes",
]  # fmt: skip
Word = str | bool | int | float | None

UP = ("1", "+1", "true", "up", "thumbs_up", "thumbsup", "like", "liked", "positive", "good", "yes", "👍")
DOWN = ("0", "-1", "false", "down", "thumbs_down", "thumbsdown", "dislike", "disliked", "negative", "bad", "no", "👎")
MILLISECONDS_FROM = 1e11
"""A Unix time above this is in milliseconds: in seconds it would be the year 5138."""
AHEAD = timedelta(days=1)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thumbs(_Part):
    """Which values are a thumb. A number first meets the bounds, where they are given."""

    up: tuple[Word, ...] = UP
    down: tuple[Word, ...] = DOWN
    none: tuple[Word, ...] = ("", "none", "null")
    up_from: float | None = None
    down_to: float | None = None


class Verdicts(_Part):
    """Which choices are which verdict."""

    left: tuple[str, ...] = ("left",)
    right: tuple[str, ...] = ("right",)
    tie: tuple[str, ...] = ("tie",)
    both_bad: tuple[str, ...] = ("both_bad",)


class Times(_Part):
    """How times are written."""

    format: str | None = None
    zone: str = "UTC"

    @field_validator("zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(f"there is no time zone {name}") from error
        return name


class Mapping(_Part):
    """How rows are read. A column that is not named is looked for under our own name for it."""

    columns: dict[Field, str] = {}
    thumb: Thumbs = Thumbs()
    verdict: Verdicts = Verdicts()
    time: Times = Times()

    def get(self, row: AnyMapping[str, Any], field: Field, *others: str) -> Any:
        """The row's value for a field; `others` are names that it commonly has. None where there is none."""
        if field in self.columns:
            return dig(row, self.columns[field])
        return next((row[name] for name in (field, *others) if row.get(name) is not None), None)

    def words(self, row: AnyMapping[str, Any], field: Field, *others: str) -> str | None:
        """The same as text that is not empty; a number is written out. Raises `BadRow` for anything else."""
        value = self.get(row, field, *others)
        if isinstance(value, bool | int | float):
            value = str(value)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, str):
            raise BadRow(f"{field} is no text")
        return value

    def thumb_of(self, value: Any) -> bool | None:
        """Up, down or neither. Raises `BadRow` for a value that the mapping doesn't know."""
        number = _number(value)
        if number is not None and (self.thumb.up_from is not None or self.thumb.down_to is not None):
            return self._by_bounds(number)
        word = _word(value)
        if word in {_word(v) for v in self.thumb.none}:
            return None
        if word in {_word(v) for v in self.thumb.up}:
            return True
        if word in {_word(v) for v in self.thumb.down}:
            return False
        raise BadRow(f"the thumb {_shown(value)} is neither up nor down; name it in the mapping's [thumb]")

    def purposes_of(self, row: AnyMapping[str, Any]) -> Purposes | None:
        """What the row's person agreed to; None where it doesn't say. Raises `BadRow` for a purpose that is none."""
        value = self.get(row, "purposes")
        if value is None or value == "":
            return None
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list):
            raise BadRow(f"purposes {_shown(value)} are neither a text nor a list")
        said = [_word(name) for name in names]
        unknown = [name for name in said if name not in (*Purpose, "none")]
        if unknown or ("none" in said and len(said) > 1):
            raise BadRow(f"purposes {_shown(value)}: it is training, labeling, both with a comma, or none")
        return tuple(purpose for purpose in Purpose if purpose in said)

    def verdict_of(self, choice: str) -> Verdict | None:
        """The verdict that a choice stands for, if it is one."""
        named = {
            Verdict.LEFT: self.verdict.left,
            Verdict.RIGHT: self.verdict.right,
            Verdict.TIE: self.verdict.tie,
            Verdict.BOTH_BAD: self.verdict.both_bad,
        }
        return next((verdict for verdict, words in named.items() if _word(choice) in map(_word, words)), None)

    def moment(self, value: Any, *, now: datetime) -> datetime | None:
        """A time; None for an empty value. Raises `BadRow` for what is none, or lies ahead of `now`."""
        if value is None or value == "":
            return None
        try:
            moment = value if isinstance(value, datetime) else self._read(value)
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(self.time.zone))).astimezone(UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise BadRow(f"the time {_shown(value)} can't be read; say how it is written in [time]") from error
        if moment.timestamp() < 0 or moment > now + AHEAD:
            raise BadRow(f"the time {_shown(value)} lies before 1970 or in the future")
        return moment

    def _read(self, value: Any) -> datetime:
        if self.time.format is not None:
            return datetime.strptime(str(value), self.time.format)
        number = _number(value)
        if number is not None:
            return datetime.fromtimestamp(number / 1000 if abs(number) > MILLISECONDS_FROM else number, UTC)
        return datetime.fromisoformat(str(value).strip())

    def _by_bounds(self, number: float) -> bool | None:
        if self.thumb.up_from is not None and number >= self.thumb.up_from:
            return True
        if self.thumb.down_to is not None and number <= self.thumb.down_to:
            return False
        return None


def load(path: Path) -> Mapping:
    """The mapping in a file; raises `SettingsError` with what to mend."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return Mapping.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error


def dig(row: Any, path: str) -> Any:
    """What lies at a dotted path in a row; a name with dots in it is found as well. None where nothing is."""
    if isinstance(row, AnyMapping) and path in row:
        return row[path]
    name, dot, rest = path.partition(".")
    inner: Any = None
    if isinstance(row, AnyMapping):
        inner = row.get(name)
    elif isinstance(row, list) and name.lstrip("-").isdigit() and -len(row) <= int(name) < len(row):
        inner = row[int(name)]
    return dig(inner, rest) if dot and inner is not None else inner


def _word(value: Any) -> str:
    """A value as it is compared: 1, 1.0 and "1" are one word, True and "true" another."""
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
