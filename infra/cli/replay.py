"""`thumbwheel replay`: a file of human comparisons through Kafka, as label events."""

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import Bootstrap, Data, Place, locate

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN_BAD_ROWS = 10


def replay(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSONL or .jsonl.gz: prompt, chosen, rejected.")],
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows; 0 is all.")] = 0,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Feed comparisons from a file through Kafka as label events; the same file twice counts once.

    `prompt` is a string or a list of {role, content}; `labeler_id` says who chose, if a row has it. A bad row is
    reported by its line number and stops nothing.

    Examples:

      thumbwheel replay comparisons.jsonl.gz

      thumbwheel replay comparisons.jsonl --limit 1000 --bootstrap-servers kafka-1:9092
    """
    from infra.cli.foreground import find
    from infra.cli.terminal import err, out

    path, place = find(file), locate(data, bootstrap_servers)
    sent, bad = feed(path, place, limit=limit)
    out().print(f"{sent:,} label events acknowledged by {place.kafka.bootstrap_servers}, {len(bad):,} bad rows")
    for number, why in bad[:SHOWN_BAD_ROWS]:
        err().print(f"  line {number}: {why}", markup=False)
    if len(bad) > SHOWN_BAD_ROWS:
        err().print(f"  and {len(bad) - SHOWN_BAD_ROWS:,} more")
    if sent:
        out().print("`thumbwheel train --reward-only` trains the reward model on them once they are in the tables")
    raise typer.Exit(0 if sent or not bad else 1)


def feed(path: Path, place: Place, *, limit: int) -> tuple[int, list[tuple[int, str]]]:
    """Publish the file's rows; the number of events acknowledged, and (line number, reason) of each bad row."""
    import getpass
    from datetime import UTC, datetime

    from infra.lake.redacting import recognisers, redact_label
    from infra.local.comparisons import SOURCE, BadRow, label_event
    from infra.local.log import Publisher
    from schemas import topics
    from schemas.audit import Audit
    from schemas.envelope import new_event

    publisher, bad, redactor = Publisher(place.kafka), list[tuple[int, str]](), recognisers()
    labeler, now, taken = f"replay:{path.name}"[:200], datetime.now(UTC), 0
    with opened(path) as (lines, read), progress(path, read) as advance:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if limit and taken >= limit:
                break
            taken += 1
            try:
                event = label_event(line, labeler=labeler, time=now)
                publisher.publish(topics.LABELS, redact_label(event, redactor))
            except BadRow as error:
                bad.append((number, str(error)))
            advance()
        publisher.flush()
    sent = publisher.acknowledged
    detail = f"{sent} label events, {len(bad)} bad rows"
    audit = Audit(actor=f"cli:{getpass.getuser()}", action="replay", target=path.name[:200], detail=detail)
    publisher.publish(topics.AUDIT, new_event(audit, source=SOURCE))
    publisher.flush()
    return sent, bad


@contextmanager
def opened(path: Path) -> "Iterator[tuple[Iterable[bytes], Callable[[], int]]]":
    """The file's lines, unpacked if they are packed, and how many bytes of it have been read."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield (gzip.GzipFile(fileobj=raw) if packed else raw), raw.tell


@contextmanager
def progress(path: Path, read: "Callable[[], int]") -> "Iterator[Callable[[], None]]":
    """A bar on stderr by bytes read; nothing where that is no terminal."""
    from rich.progress import Progress

    from infra.cli.terminal import err

    with Progress(console=err(), transient=True, disable=not err().is_terminal) as bar:
        task = bar.add_task(f"replaying {path.name}", total=path.stat().st_size)
        yield lambda: bar.update(task, completed=read())
