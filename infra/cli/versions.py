"""`thumbwheel versions`: who serves, who could, and moves by hand."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from infra.cli.options import Bootstrap, Data, Place, locate

if TYPE_CHECKING:
    from rich.text import Text

    from schemas.versions import Board, ModelVersion, Standing

app = typer.Typer(help="List model versions, look at one, promote one, roll back.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the event.", show_default=False)]
SOURCE = "infra/cli/versions"
STYLES = {"live": "bold green", "rejected": "red", "rolled_back": "red", "registered": "yellow"}


@app.command("list", epilog="Example: thumbwheel versions list --json")
def list_versions(
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Every version with its state, in the order of their latest change."""
    from infra.cli.terminal import err, out, table

    place = locate(data, bootstrap_servers)
    board = _board(place)
    if as_json:
        for standing in board.standings.values():
            print(standing.event.model_dump_json(exclude_none=True))  # noqa: T201 - a result, to be piped
        return
    if not board.standings:
        err().print("no versions yet: the rollout controller registers `base` when it starts (`thumbwheel up`)")
        return
    columns = ("version", "state", "since", "parent", "win rate", "KL", "gates", "reason")
    grid = table(*columns, right=("win rate", "KL"), whole=("version", "state", "since", "gates"))
    serving = board.live()
    for standing in board.standings.values():
        grid.add_row(*_row(standing, serves=serving is not None and standing.event.version == serving.version))
    out().print(grid)


@app.command(epilog="Example: thumbwheel versions show v2")
def show(
    version: Annotated[str, typer.Argument(metavar="VERSION")],
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """All that is known of one version: its life so far, its gates, its files."""
    from infra.cli.terminal import out, table
    from infra.local.log import read_all
    from schemas import topics
    from schemas.versions import Board, ModelVersion

    place = locate(data, bootstrap_servers)
    events = list(read_all(place.kafka, topics.MODEL_VERSIONS, ModelVersion))
    latest = Board().fold((e.data, e.time) for e in events).get(version)
    facts = table("", "")
    facts.show_header = False
    for name, value in _facts(latest, place):
        facts.add_row(f"[bold]{name}[/]", value if name == "state" else escape(value))
    out().print(facts)
    if latest.gates:
        numbers = ("value", "threshold", "cases")
        gates = table("gate", "", "value", "interval", "threshold", "cases", "detail", right=numbers)
        for g in latest.gates:
            interval = f"{g.low:.3f} - {g.high:.3f}" if g.low is not None and g.high is not None else ""
            verdict = "[green]passed[/]" if g.passed else "[red]failed[/]"
            cases = "" if g.cases is None else str(g.cases)
            gates.add_row(g.name, verdict, f"{g.value:.3f}", interval, f"{g.threshold:.3f}", cases, escape(g.detail))
        out().print(gates)
        for g in (g for g in latest.gates if not g.passed and g.remedy):
            out().print(f"to change [bold]{g.name}[/]: {escape(g.remedy or '')}")
    life = table("when", "state", "by", "reason")
    for event in (e for e in events if e.data.version == version):
        life.add_row(_moment(event.time), _state(event.data.state), escape(event.data.actor), escape(event.data.reason))
    out().print(life)


@app.command(epilog="Example: thumbwheel versions promote v2 --reason 'reviewed by the team'")
def promote(
    version: Annotated[str, typer.Argument(metavar="VERSION")],
    reason: Reason = "",
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Make a version serve; the one that served retires."""
    from infra.cli.terminal import out
    from infra.cli.version_moves import promotion

    place = locate(data, bootstrap_servers)
    board = _board(place)
    events = promotion(board, version, actor=actor(), reason=reason)
    _publish(place, board, events, action="promotion", target=version)
    out().print(f"{version} is live; gateways switch as soon as they have loaded it")


@app.command(
    epilog="Examples: thumbwheel versions rollback | thumbwheel versions rollback base --reason 'answers got rude'"
)
def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Where to return to; by default the one retired last.")
    ] = None,
    reason: Reason = "",
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Take the live version back and return to an earlier one."""
    from infra.cli.terminal import out
    from infra.cli.version_moves import rollback as decide

    place = locate(data, bootstrap_servers)
    board = _board(place)
    back, forth = decide(board, version, actor=actor(), reason=reason)
    _publish(place, board, [back, forth], action="rollback", target=back.version)
    out().print(f"{back.version} is rolled back; {forth.version} is live")


def _board(place: Place) -> "Board":
    from infra.local.log import read_all
    from schemas import topics
    from schemas.versions import Board, ModelVersion

    events = read_all(place.kafka, topics.MODEL_VERSIONS, ModelVersion)
    return Board().fold((e.data, e.time) for e in events)


def _publish(place: Place, board: "Board", events: "list[ModelVersion]", *, action: str, target: str) -> None:
    from infra.local.log import Publisher
    from schemas import topics
    from schemas.audit import Audit
    from schemas.envelope import new_event
    from serving.core.rollout import event_id

    publisher = Publisher(place.kafka)
    for event in events:
        # The controller's own ids: a retirement that both of us announce counts once.
        publisher.publish(topics.MODEL_VERSIONS, new_event(event, source=SOURCE, id=event_id(board, event)))
    detail = "; ".join(f"{e.version}: {e.previous_state} -> {e.state}, {e.reason}" for e in events)
    audit = Audit.model_validate({"actor": actor(), "action": action, "target": target, "detail": detail})
    publisher.publish(topics.AUDIT, new_event(audit, source=SOURCE))
    publisher.flush()


def actor() -> str:
    import getpass

    return f"cli:{getpass.getuser()}"


def _row(standing: "Standing", *, serves: bool) -> "tuple[str | Text, ...]":
    event = standing.event
    passed = sum(g.passed for g in event.gates)
    return (
        f"[bold]{event.version}[/]",
        _state(event.state) + (" [green](serves)[/]" if serves else ""),
        _moment(standing.since),
        event.parent or "",
        f"{event.win_rate:.0%}" if event.win_rate is not None else "",
        f"{event.kl:.2f}" if event.kl is not None else "",
        f"{passed} of {len(event.gates)}" if event.gates else "",
        escape(event.reason),
    )


def _facts(event: "ModelVersion", place: Place) -> list[tuple[str, str]]:
    adapter = f"{place.data / 'registry' / event.adapter_path}" if event.adapter_path else "none: the base itself"
    win = f"{event.win_rate:.1%} by the judge over its parent" if event.win_rate is not None else None
    kl = f"{event.kl:.3f} nats a completion from the base" if event.kl is not None else None
    rows = [
        ("version", event.version),
        ("state", _state(event.state)),
        ("parent", event.parent),
        ("base model", event.base_model),
        ("cycle", event.cycle_id),
        ("adapter", adapter),
        ("sha256", event.adapter_sha256),
        ("win rate", win),
        ("KL", kl),
    ]
    return [(name, value) for name, value in rows if value]


def _state(state: str) -> str:
    style = STYLES.get(state, "default")
    return f"[{style}]{state.replace('_', ' ')}[/]"


def _moment(time: object) -> str:
    from datetime import datetime

    assert isinstance(time, datetime)
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"
