"""Dead letters as an operator sees them: where they were, what became of them, and which of them are meant.

    bronze.dead_letters ──┐
    gold.audit ───────────┴─► letters with a state ─► chosen ─► full letters, a slice at a time
    audit.v1, what is not in the table yet ─┘

A letter itself never changes. What somebody did about it is an audit event whose target is the letter's id; the latest
one is its state.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import polars as pl

from schemas import topics
from schemas.audit import Audit
from schemas.connection import KafkaConnection
from schemas.errors import SettingsError
from schemas.tables import DeadLetterRow
from streams.adapters.dead_letters import FOUND_LATER, Letter
from streams.adapters.lake import LakeTable

ID_PREFIX = "dead-"
SLICE_LETTERS = 500
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PLACE = ("dead_letter_id", "topic", "kafka_partition", "kafka_offset", "reason", "detail", "failed_at")


class State(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    RETRIED = "retried"
    DROPPED = "dropped"


STATE_BY_ACTION = {"replay": State.RETRIED, "dead_letter_drop": State.DROPPED}


@dataclass(frozen=True, slots=True, order=True)
class Act:
    """What somebody did about one letter. Acts compare by time, then by event id."""

    at: datetime
    event_id: str
    letter_id: str
    state: State
    actor: str


@dataclass(frozen=True, slots=True)
class Filed:
    """A letter without its bytes, with its state; `actor` and `acted_at` are None while it is open."""

    id: str
    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    failed_at: datetime
    state: State
    actor: str | None
    acted_at: datetime | None

    @property
    def found_later(self) -> bool:
        """Whether its event is in its table already: sending it again would change nothing."""
        return self.reason in FOUND_LATER


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant; what is None or empty does not narrow."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    topic: str | None = None
    since: datetime | None = None
    states: tuple[State, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """The letters of one topic and reason: how many in each state, the time of the newest, and its id and detail."""

    topic: str
    reason: str
    open: int
    retried: int
    dropped: int
    newest: datetime
    example: str
    detail: str


def acts(audit: LakeTable | None, log: KafkaConnection | None) -> dict[str, Act]:
    """The latest act on each letter, by the table and, where a log is given, by what is on its way there.

    Raises `BrokerUnavailable` where the log doesn't answer.
    """
    found: dict[str, Act] = {}
    for act in [*_stored_acts(audit), *(_logged_acts(log) if log else ())]:
        if act.letter_id not in found or found[act.letter_id] < act:
            found[act.letter_id] = act
    return found


def _stored_acts(audit: LakeTable | None) -> Iterator[Act]:
    if audit is None:
        return
    ours = pl.col("action").is_in(list(STATE_BY_ACTION)) & pl.col("target").str.starts_with(ID_PREFIX)
    columns = ("event_time", "event_id", "target", "action", "actor")
    for at, event_id, target, action, actor in audit.all().filter(ours).select(columns).collect().iter_rows():
        yield Act(at, event_id, target, STATE_BY_ACTION[action], actor)


def _logged_acts(log: KafkaConnection) -> Iterator[Act]:
    from infra.local.log import read_all

    for event in read_all(log, topics.AUDIT, Audit):
        state = STATE_BY_ACTION.get(event.data.action)
        if state is not None and event.data.target.startswith(ID_PREFIX):
            yield Act(event.time, event.id, event.data.target, state, event.data.actor)


class Letters:
    """The letters of one lake, with their states."""

    def __init__(self, table: LakeTable, acts: Mapping[str, Act]) -> None:
        self._table, self._acts = table, acts

    def counts(self) -> list[Count]:
        """By topic and reason, the largest number of open ones first."""
        groups = self._filed().sort("failed_at", "dead_letter_id").group_by("topic", "reason")
        states = [(pl.col("state") == state).sum().alias(str(state)) for state in State]
        newest = [pl.col(c).last() for c in ("failed_at", "dead_letter_id", "detail")]
        frame = groups.agg(*states, *newest).collect().sort("open", "topic", "reason", descending=[True, False, False])
        return [
            Count(
                topic=row["topic"],
                reason=row["reason"],
                open=row[State.OPEN],
                retried=row[State.RETRIED],
                dropped=row[State.DROPPED],
                newest=row["failed_at"],
                example=row["dead_letter_id"],
                detail=row["detail"],
            )
            for row in frame.iter_rows(named=True)
        ]

    def find(self, choice: Choice, *, limit: int | None = None) -> list[Filed]:
        """The letters that are meant, the newest first. Ids may be cut short as long as they are unambiguous.

        Raises `SettingsError` for an id that none or several letters have.
        """
        frame = self._filed()
        if choice.ids:
            frame = frame.filter(pl.col("dead_letter_id").is_in(self._whole_ids(choice.ids)))
        for column, value in (("reason", choice.reason), ("topic", choice.topic)):
            if value is not None:
                frame = frame.filter(pl.col(column) == value)
        if choice.since is not None:
            frame = frame.filter(pl.col("failed_at") >= choice.since)
        if choice.states:
            frame = frame.filter(pl.col("state").is_in(list(choice.states)))
        frame = frame.sort("failed_at", "dead_letter_id", descending=True)
        if limit is not None:
            frame = frame.head(limit)
        return [self._filed_row(row) for row in frame.collect().to_dicts()]

    def one(self, id: str) -> tuple[Filed, Letter]:
        """A letter as a whole; raises `SettingsError` where there is none of that id."""
        (filed,) = self.find(Choice(ids=(id,)))
        (whole,) = self.whole([filed])
        return whole

    def whole(self, chosen: Iterable[Filed]) -> Iterator[tuple[Filed, Letter]]:
        """The chosen letters with their bytes, in order of their places; a slice at a time is in memory."""
        ordered = sorted(chosen, key=lambda f: (f.topic, f.partition, f.offset, f.id))
        start = 0
        for end in range(1, len(ordered) + 1):
            whole_slice = end == len(ordered) or _place(ordered[end]) != _place(ordered[start])
            if whole_slice or end - start == SLICE_LETTERS:
                yield from self._slice(ordered[start:end])
                start = end

    def _slice(self, chosen: Sequence[Filed]) -> Iterator[tuple[Filed, Letter]]:
        """Letters of one topic's partition, ordered by offset: the statistics then rule out most files."""
        topic, partition = _place(chosen[0])
        low, high = chosen[0].offset, chosen[-1].offset
        files = self._table.files({"kafka_partition": (partition, partition), "kafka_offset": (low, high)})
        wanted = (
            (pl.col("topic") == topic)
            & (pl.col("kafka_partition") == partition)
            & pl.col("kafka_offset").is_between(low, high)
            & pl.col("dead_letter_id").is_in([f.id for f in chosen])
        )
        frame = self._table.scan(files).filter(wanted).unique("dead_letter_id").collect()
        rows = {row["dead_letter_id"]: row for row in frame.iter_rows(named=True)}
        for filed in chosen:
            yield filed, Letter.of(DeadLetterRow.model_validate(rows[filed.id], extra="ignore"))

    def _filed(self) -> pl.LazyFrame:
        """All letters without their bytes, each once, with their states."""
        letters = self._table.all().select(_PLACE).unique("dead_letter_id")
        schema = {
            "dead_letter_id": pl.String,
            "state": pl.String,
            "actor": pl.String,
            "acted_at": pl.Datetime("us", "UTC"),
        }
        done = [(a.letter_id, str(a.state), a.actor, a.at) for a in self._acts.values()]
        joined = letters.join(pl.LazyFrame(done, schema=schema, orient="row"), on="dead_letter_id", how="left")
        return joined.with_columns(pl.col("state").fill_null(str(State.OPEN)))

    def _whole_ids(self, ids: Sequence[str]) -> list[str]:
        known = self._table.all().select(pl.col("dead_letter_id").unique())
        return [self._whole_id(known, begin) for begin in dict.fromkeys(ids)]

    def _whole_id(self, known: pl.LazyFrame, begin: str) -> str:
        matching = known.filter(pl.col("dead_letter_id").str.starts_with(begin)).sort("dead_letter_id")
        matches = matching.head(2).collect()["dead_letter_id"].to_list()
        if not matches:
            raise SettingsError(f"there is no dead letter {begin!r}; `thumbwheel dlq list` shows their ids")
        if len(matches) > 1 and begin not in matches:
            raise SettingsError(f"several dead letters begin with {begin!r}; write more of the id")
        return str(matches[0])

    def _filed_row(self, row: Mapping[str, object]) -> Filed:
        return Filed(
            id=str(row["dead_letter_id"]),
            topic=str(row["topic"]),
            partition=int(str(row["kafka_partition"])),
            offset=int(str(row["kafka_offset"])),
            reason=str(row["reason"]),
            detail=str(row["detail"]),
            failed_at=_time(row["failed_at"]),
            state=State(str(row["state"])),
            actor=None if row["actor"] is None else str(row["actor"]),
            acted_at=None if row["acted_at"] is None else _time(row["acted_at"]),
        )


def since(text: str, now: datetime) -> datetime:
    """The moment that `2h`, `7d` or an ISO time means; raises `SettingsError` for anything else."""
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS and number.isdigit():
            return now - timedelta(**{_UNITS[unit]: int(number)})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise SettingsError(
            f"--since {text!r} is no time: write 30m, 2h, 7d, or 2026-11-21T12:00 (local unless it names a zone)"
        ) from error
    return moment.astimezone(UTC)


def _place(filed: Filed) -> tuple[str, int]:
    return filed.topic, filed.partition


def _time(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value
