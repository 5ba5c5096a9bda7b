"""Bring a file in: rows become drafts, lose their personal data, and go out as ordinary events.

    file ──► rows ──► drafts ──► redacted ──► events ──► Kafka ──► ingest, like anything else
               └ bad rows, by line              └ the ids are hashes of the content

So an import that was interrupted goes on by being run again: what is in the tables already counts once.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from infra.lake import formats, label_studio, sources
from infra.lake.drafts import Compared, Draft
from infra.lake.events import Origin, events
from infra.lake.mapping import Mapping as ColumnMapping
from infra.lake.redacting import Redactor, redact
from infra.local.comparisons import BadRow
from schemas.consent import Purpose
from schemas.envelope import Event
from schemas.errors import SettingsError
from schemas.messages import Payload
from schemas.topics import Topic

SHOWN_BAD_ROWS = 20
APART_SECONDS = 5.0


class Kind(StrEnum):
    """What the rows of a file are."""

    PREFERENCE = "preference"
    UNPAIRED = "unpaired"
    PROMPTS = "prompts"
    LABEL_STUDIO = "label-studio"
    THUMBS = "thumbs"


_READERS: Mapping[Kind, Callable[..., list[Draft]]] = {
    Kind.PREFERENCE: formats.preference,
    Kind.UNPAIRED: formats.rated,
    Kind.PROMPTS: formats.prompts,
    Kind.LABEL_STUDIO: label_studio.task,
    Kind.THUMBS: formats.rated,
}


class Sink(Protocol):
    """Where events go (`infra.local.log.Publisher`, or nowhere)."""

    def publish(self, topic: Topic, event: Event[Payload]) -> None: ...

    def flush(self) -> None: ...


class Nowhere:
    """The sink of a dry run."""

    def publish(self, topic: Topic, event: Event[Payload]) -> None:
        pass

    def flush(self) -> None:
        pass


@dataclass
class Tally:
    """What has become of the rows so far. `silent` rows say nothing of an answer; `bad_rows` are the first ones."""

    rows: int = 0
    silent: int = 0
    bad: int = 0
    bad_rows: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    events: Counter[str] = field(default_factory=Counter[str])
    redacted: Counter[str] = field(default_factory=Counter[str])

    def note_bad(self, number: int, why: str) -> None:
        """One more bad row."""
        self.bad += 1
        if len(self.bad_rows) < SHOWN_BAD_ROWS:
            self.bad_rows.append((number, why))

    def detail(self) -> str:
        """The counts in a line, for the audit event."""
        sent = ", ".join(f"{number} {name}" for name, number in sorted(self.events.items())) or "no events"
        found = ", ".join(f"{number} {kind}" for kind, number in sorted(self.redacted.items())) or "nothing"
        return f"{self.rows} rows: {sent}; {self.bad} bad, {self.silent} without a word; {found} redacted"


def run(
    path: Path,
    kind: Kind,
    mapping: ColumnMapping,
    origin: Origin,
    *,
    sink: Sink,
    redactor: Redactor | None,
    strict: bool = False,
    tally: Tally | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Tally:
    """Read the file to its end and return when the log has acknowledged its events.

    Raises `SettingsError` for a file that can't be read at all and, with `strict`, at the first bad row;
    `BrokerUnavailable` where the log doesn't answer. `tally` holds what was done until then.
    """
    counts = Tally() if tally is None else tally
    convert = partial(_converted, kind=kind, mapping=mapping, undated=Undated(origin), redactor=redactor)
    with sources.opened(path) as source:
        for number, row in source.rows:
            counts.rows += 1
            try:
                if isinstance(row, BadRow):
                    raise row
                found, redacted = convert(row)
            except BadRow as error:
                counts.note_bad(number, str(error))
                if strict:
                    break
                continue
            counts.redacted.update(redacted)
            counts.silent += not found
            for topic, event in found:
                sink.publish(topic, event)
                counts.events[topic.payload.schema_name] += 1
            on_progress(source.done(), source.total)
    sink.flush()
    if strict and counts.bad:
        number, why = counts.bad_rows[0]
        raise SettingsError(
            f"{path.name}, row {number}: {why}; stopped there (--strict) after {sum(counts.events.values()):,} events;"
            " mend it and import the file again: what is in already counts once"
        )
    return counts


def _converted(
    row: Mapping[str, Any], *, kind: Kind, mapping: ColumnMapping, undated: "Undated", redactor: Redactor | None
) -> tuple[list[tuple[Topic, Event[Payload]]], Counter[str]]:
    """The events of one row, all or none, and what was redacted in it."""
    found: list[tuple[Topic, Event[Payload]]] = []
    redacted: Counter[str] = Counter()
    purposes = mapping.purposes_of(row)
    for draft in _READERS[kind](row, mapping, now=undated.origin.now):
        clean = draft
        if redactor is not None:
            clean, kinds = redact(draft, redactor)
            redacted.update(kinds)
        origin = undated.origin_of(clean)
        found += events(clean, origin if purposes is None else replace(origin, purposes=purposes))
    return found, redacted


class Undated:
    """The time of rows that name none: the time of the import, but one user's ratings some seconds apart.

    All at one moment they would be taken for a burst of clicks, of which only the first few count
    (`streams.core.conduct`). They begin a day before the import and keep the file's order.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._rated: Counter[str] = Counter()

    def origin_of(self, draft: Draft) -> Origin:
        """The origin, with the time that the draft's events get if it has none."""
        if isinstance(draft, Compared) or draft.time is not None or draft.user is None:
            return self.origin
        self._rated[draft.user] += 1
        begin, apart = self.origin.now - timedelta(days=1), timedelta(seconds=APART_SECONDS)
        return replace(self.origin, now=min(begin + self._rated[draft.user] * apart, self.origin.now))


def check_purposes(kind: Kind, origin: Origin) -> None:
    """Of a whole file of comparisons without consent to training nothing would come. Raises `SettingsError`."""
    compares = kind in (Kind.PREFERENCE, Kind.LABEL_STUDIO)
    if compares and origin.purposes is not None and Purpose.TRAINING not in origin.purposes:
        raise SettingsError(
            f"--purposes without training: rows of the format {kind} are judgements to learn from, and nothing would"
            " come of them; leave the file out, or ask the people"
        )
