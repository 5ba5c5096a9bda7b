"""`thumbwheel dlq`: messages that were no event, and what to do about them.

bronze.dead_letters, gold.audit ─► list, show ─► retry ─► the letter's own topic, and an audit event
                                                 drop  ─► an audit event
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.letter_list import fields, of_ms, print_counts, print_json, print_letters, shown_moment, tally
from infra.cli.letter_send import audit_publisher, record, send
from infra.cli.options import Bootstrap, Data, Place, locate

if TYPE_CHECKING:
    from infra.cli.letters import Choice, Filed, Letters, State
    from schemas.tables import Table
    from streams.adapters.lake import LakeTable

RESTRICTED = (
    "Restricted: what could not be read could not be redacted, so a dead letter may hold personal data. Its bytes stay"
    " in bronze/dead_letters until they are erased."
)
SHOWN_REFUSALS = 20

app = typer.Typer(
    help=f"Messages that were no event of their topic: see why, mend, send again or drop. {RESTRICTED}",
    no_args_is_help=True,
)

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of dead letters, or their unambiguous beginnings.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="All letters of this reason.")]
TopicName = Annotated[str | None, typer.Option("--topic", help="All letters of this topic.")]


@app.command("list", epilog="Examples: thumbwheel dlq list | thumbwheel dlq list --reason malformed_json --since 2h")
def list_(
    reason: Reason = None,
    topic: TopicName = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="At most so old: 30m, 2h, 7d, or an ISO time.")
    ] = None,
    state: Annotated[
        str, typer.Option("--state", metavar="open|retried|dropped|all", help="Letters in this state.")
    ] = "open",
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many letters; the counts are of all.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """How many there are by topic and reason, and the newest of them. What they hold is not shown."""
    from infra.cli import letters as core
    from infra.cli.terminal import out

    place = locate(data, bootstrap_servers)
    moment = core.since(since, datetime.now(UTC)) if since else None
    choice = core.Choice(reason=reason, topic=topic, since=moment, states=_states(state))
    box = _letters(place, sure=False)
    counts, found = (box.counts(), box.find(choice, limit=limit)) if box else ([], [])
    if as_json:
        print_json({"counts": [fields(c) for c in counts], "letters": [fields(f) for f in found]})
        return
    if not counts:
        out().print(f"no dead letters in {place.data}")
        return
    print_counts(counts)
    print_letters(found)


@app.command(epilog="Examples: thumbwheel dlq show dead-3f2a | thumbwheel dlq show dead-3f2a --raw > original.bin")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="A dead letter's id, or its unambiguous beginning.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the value's bytes to standard output, and no more.")
    ] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """A letter as a whole: why it is one, where it was, its headers, and its value as JSON or as a hex dump.

    Restricted: what could not be read could not be redacted; a value may hold personal data.
    """
    from infra.cli.letter_view import one_line, shown_bytes, shown_value
    from infra.cli.terminal import out

    filed, letter = _some(_letters(locate(data, bootstrap_servers), sure=False)).one(id)
    if raw:
        sys.stdout.buffer.write(letter.value or b"")
        sys.stdout.buffer.flush()
        return
    acted = f" by {filed.actor}, {shown_moment(filed.acted_at)}" if filed.acted_at else ""
    facts = [
        ("letter", filed.id),
        ("reason", filed.reason),
        ("detail", one_line(filed.detail)),
        ("was at", f"{filed.topic}, partition {filed.partition}, offset {filed.offset}"),
        ("sent at", shown_moment(of_ms(letter.timestamp_ms)) if letter.timestamp_ms is not None else "not known"),
        ("failed at", shown_moment(filed.failed_at)),
        ("state", f"{filed.state}{acted}"),
        ("key", shown_bytes(letter.key)),
        *((f"header {one_line(name)}", shown_bytes(value)) for name, value in letter.headers),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        out().print(f"{name:<{width}}  {value}", markup=False)
    out().print(f"\n{shown_value(letter.value)}", markup=False)


@app.command(
    epilog="Examples: thumbwheel dlq retry dead-3f2a --edit | thumbwheel dlq retry --reason invalid_payload"
    " | thumbwheel dlq retry --all"
)
def retry(
    ids: Ids = None,
    reason: Reason = None,
    topic: TopicName = None,
    everything: Annotated[bool, typer.Option("--all", help="All open letters.")] = False,
    edit: Annotated[bool, typer.Option("--edit", help="Mend each in $VISUAL or $EDITOR before it is sent.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those that were retried or dropped before, too.")] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Send letters to their topic again. What would fail again is not sent; you are told why.

    The event id stays, or is made of the letter's where there is none: a letter that is sent twice counts once. Exit
    code 1 where a letter was not sent.
    """
    from infra.cli.terminal import err, out

    place = locate(data, bootstrap_servers)
    box = _some(_letters(place, sure=True))
    chosen, waiting = _retriable(box.find(_choice(ids, reason, topic, everything=everything, again=again)))
    if waiting:
        err().print(_WAITING.format(count=waiting), markup=False)
    sent, failed = send(place, box.whole(chosen), edit=edit, interactive=_interactive)
    out().print(f"{sent} sent again and acknowledged by {place.kafka.bootstrap_servers}; {len(failed)} left open")
    for letter_id, why in failed[:SHOWN_REFUSALS]:
        err().print(f"  {letter_id}: {why}", markup=False)
    if len(failed) > SHOWN_REFUSALS:
        err().print(f"  and {len(failed) - SHOWN_REFUSALS} more")
    raise typer.Exit(1 if failed else 0)


_WAITING = (
    "{count} letters were passed over: their events are in the table already, and are only reported. Feedback on an"
    " unknown response joins by itself when the answer comes; feedback of another tenant never counts."
)


@app.command(epilog="Examples: thumbwheel dlq drop dead-3f2a | thumbwheel dlq drop --reason empty_value --yes")
def drop(
    ids: Ids = None,
    reason: Reason = None,
    topic: TopicName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Say that nothing more is to be done about letters: they are no longer open. Their bytes stay until erased."""
    from infra.cli.terminal import out

    place = locate(data, bootstrap_servers)
    chosen = _some(_letters(place, sure=True)).find(_choice(ids, reason, topic, everything=False, again=False))
    if not chosen:
        out().print("nothing to drop: no open letter is meant")
        return
    reasons = ", ".join(f"{n} {r}" for r, n in tally(chosen).items())
    if not yes and not typer.confirm(f"Drop {len(chosen)} letters ({reasons})?"):
        raise typer.Exit(1)
    publisher = audit_publisher(place)
    for filed in chosen:
        record(publisher, "dead_letter_drop", filed, "dropped")
    publisher.flush()
    out().print(f"{len(chosen)} dropped ({reasons})")


def _interactive() -> bool:
    return sys.stdin.isatty()


def _choice(
    ids: Sequence[str] | None, reason: str | None, topic: str | None, *, everything: bool, again: bool
) -> "Choice":
    from infra.cli.letters import Choice, State

    if sum([bool(ids), bool(reason or topic), everything]) != 1:
        raise typer.BadParameter("say which letters: ids, or --reason and --topic, or (to retry) --all")
    return Choice(ids=tuple(ids or ()), reason=reason, topic=topic, states=tuple(State) if again else (State.OPEN,))


def _retriable(chosen: "list[Filed]") -> "tuple[list[Filed], int]":
    """Those that can come to something, and how many can't."""
    letters = [f for f in chosen if not f.found_later]
    return letters, len(chosen) - len(letters)


def _letters(place: Place, *, sure: bool) -> "Letters | None":
    """The letters with their states, None where there is no table.

    Acts that are still on their way to the table are looked up in the log, where one is known; only `sure` insists.
    """
    from infra.cli.letters import Letters, acts
    from infra.cli.terminal import err
    from schemas import tables
    from schemas.errors import BrokerUnavailable

    table = _table(place, tables.DEAD_LETTERS)
    if table is None:
        return None
    audit = _table(place, tables.AUDIT)
    log = place.kafka if sure or place.named or place.gateway_url else None
    try:
        return Letters(table, acts(audit, log))
    except BrokerUnavailable as error:
        if sure:
            raise
        err().print(f"note: states are as recorded in the tables; {error}", markup=False)
        return Letters(table, acts(audit, None))


def _table(place: Place, table: "Table") -> "LakeTable | None":
    """The open table, or None where it was never made: looking makes none."""
    from deltalake import DeltaTable

    from schemas.storage import LakeRoot
    from streams.adapters.lake import open_table
    from streams.settings import StreamSettings

    root = LakeRoot.of(StreamSettings(data=place.data, kafka=place.kafka).lake)
    there = DeltaTable.is_deltatable(root.at(table.path), storage_options=root.client_options())
    return open_table(root, table) if there else None


def _some(letters: "Letters | None") -> "Letters":
    from schemas.errors import SettingsError

    if letters is None:
        raise SettingsError(
            "there are no dead letters here: the table bronze/dead_letters does not exist; check --data"
        )
    return letters


def _states(text: str) -> "tuple[State, ...]":
    from infra.cli.letters import State

    if text == "all":
        return tuple(State)
    try:
        return (State(text),)
    except ValueError:
        raise typer.BadParameter(f"--state is one of {', '.join(State)}, all") from None
