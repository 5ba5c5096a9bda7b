"""`thumbwheel cycles`: update cycles, as the folder of the trainer tells of them; one now; a version made again.

list, show            read <data>/cycles and <data>/registry: neither trainer nor broker needs to run
run, reproduce        run the trainer's own program, with a bar by stage
approve, decline      a decision on disk, its audit event first; then the version's event
export, sign, make-key    work on the version's folder
"""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from infra.cli.options import Bootstrap, Data, ModelName, locate

if TYPE_CHECKING:
    from schemas.versions import GateResult
    from trainer.adapters.cycles import Cycles
    from trainer.journal import CycleStart, Outcome

app = typer.Typer(
    help="List update cycles, look at one, run one, approve what it made, make a version again, export it.",
    no_args_is_help=True,
)

STYLES = {
    "finished": "green",
    "refused": "yellow",
    "failed": "red",
    "awaiting approval": "bold yellow",
    "running": "bold",
    "cut off": "red",
}
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
CycleId = Annotated[str, typer.Argument(metavar="ID", help="A cycle's id, or its version's name.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the version.", show_default=False)]


@app.command("list", epilog="Example: thumbwheel cycles list --json")
def list_cycles(data: Data = None, as_json: AsJson = False) -> None:
    """Every update cycle of the data folder, the oldest first, with what it cost."""
    from infra.cli.terminal import err, out, table

    cycles = _cycles(locate(data, None).data)
    known = [(start, cycles.folder(start.cycle_id).outcome()) for start in _starts(cycles)]
    if as_json:
        for start, outcome in known:
            print(json.dumps(_facts(start, outcome)))  # noqa: T201 - a result, to be piped
        return
    if not known:
        err().print("no cycles yet: one begins when enough new labels are there, or by `thumbwheel cycles run`")
        return
    columns = ("id", "when", "trigger", "status", "version", "seconds", "tokens", "cost")
    grid = table(*columns, right=("seconds", "tokens", "cost"), whole=("id", "when", "status", "version"))
    for start, outcome in known:
        grid.add_row(*_row(start, outcome))
    out().print(grid)
    held = cycles.held()
    if held:
        err().print(f"the next one is due and waits: {held}", markup=False)


@app.command(epilog="Example: thumbwheel cycles show c20261121T103000-1a2b")
def show(name: CycleId, data: Data = None, as_json: AsJson = False) -> None:
    """All that is known of one cycle: what began it, its stages and their cost, its gates, its files."""
    from infra.cli.terminal import out, table

    place = locate(data, None)
    cycles = _cycles(place.data)
    start = _find(cycles, name)
    outcome = cycles.folder(start.cycle_id).outcome()
    gates = _gates(place.data, outcome.version if outcome else None)
    files = _files(place.data, start.cycle_id, outcome.version if outcome else None)
    if as_json:
        whole = _facts(start, outcome) | {"gates": [g.model_dump() for g in gates], "files": files}
        print(json.dumps(whole, indent=2))  # noqa: T201 - a result, to be piped
        return
    facts = table("", "")
    facts.show_header = False
    for title, value in _told(start, outcome):
        facts.add_row(f"[bold]{title}[/]", _styled(value) if title == "status" else escape(value))
    out().print(facts)
    if outcome and outcome.stages:
        _print_stages(outcome)
    if gates:
        _print_gates(gates)
    out().print("files:\n" + "\n".join(f"  {file}" for file in files), markup=False)


@app.command(epilog="Examples: thumbwheel cycles run | thumbwheel cycles run --model tiny --json")
def run(
    data: Data = None, bootstrap_servers: Bootstrap = None, model: ModelName = None, as_json: AsJson = False
) -> None:
    """Run one update cycle now, however little is new; one that was cut off is gone on with instead.

    Ctrl-C stops it in order at its next step: nothing is published then.
    """
    from infra.cli.foreground import run_with_bar
    from infra.cli.terminal import out

    place = locate(data, bootstrap_servers)
    code, told = run_with_bar(place, "once", model=model)
    if told and as_json:
        print(json.dumps(told))  # noqa: T201 - a result, to be piped
    elif told:
        version = f", version {told['version']}" if told.get("version") else ""
        out().print(f"cycle {told['cycle_id']} {str(told['status']).replace('_', ' ')}{version}", markup=False)
        if told.get("reason"):
            out().print(f"{told['reason']}; see `thumbwheel cycles show {told['cycle_id']}`", markup=False)
    raise typer.Exit(code)


@app.command(epilog="Example: thumbwheel cycles approve c20261121T103000-1a2b --reason 'read fifty answers'")
def approve(name: CycleId, reason: Reason = "", data: Data = None, bootstrap_servers: Bootstrap = None) -> None:
    """Let a version go that passed its gates: it is registered, and rollout takes it from there."""
    _decide(name, data, bootstrap_servers, approved=True, reason=reason)


@app.command(epilog="Example: thumbwheel cycles decline v7 --reason 'rude to children'")
def decline(name: CycleId, reason: Reason = "", data: Data = None, bootstrap_servers: Bootstrap = None) -> None:
    """Reject a version that passed its gates and waits for an approval. It can't be approved later."""
    _decide(name, data, bootstrap_servers, approved=False, reason=reason)


@app.command(
    epilog="Examples: thumbwheel cycles reproduce v3 | thumbwheel cycles reproduce c20261121T103000-1a2b --json"
)
def reproduce(name: CycleId, data: Data = None, model: ModelName = None, as_json: AsJson = False) -> None:
    """Repeat a version's cycle from its record, and compare the weights: the same on the same hardware and libraries.

    Nothing is published and nothing is kept. Exit code 1 where they differ.
    """
    from infra.cli.foreground import run_with_bar
    from infra.cli.terminal import out

    place = locate(data, None)
    version = _version(place.data, name)
    code, told = run_with_bar(place, "reproduce", version, model=model)
    if told and as_json:
        print(json.dumps(told))  # noqa: T201 - a result, to be piped
    elif told:
        out().print(f"{version}: {'the same weights' if told['same'] else 'other weights'}", markup=False)
        out().print(f"  recorded {told['recorded']}\n  today    {told['today']}", markup=False)
        for line in told["differences"]:
            out().print(f"  differs: {line}", markup=False)
        if not told["same"] and not told["differences"]:
            out().print("  code, libraries and machine are those of the record", markup=False)
    raise typer.Exit(code)


@app.command(
    epilog="Examples: thumbwheel cycles export v3 --merged ./v3 | thumbwheel cycles export v3 --mlflow http://ml:5000"
)
def export(
    name: CycleId,
    merged: Annotated[
        Path | None,
        typer.Option("--merged", metavar="DIR", help="Write base and adapter as one model.", show_default=False),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", metavar="URI", help="Log the version as a run of MLflow.", show_default=False),
    ] = None,
    data: Data = None,
    model: ModelName = None,
) -> None:
    """Take a version elsewhere: as one merged model (safetensors, tokenizer, card), or as a run of MLflow."""
    from infra.cli.errors import shown
    from infra.cli.terminal import err, out
    from infra.models.catalog import prepare
    from trainer.adapters import exports
    from trainer.adapters.registry import Registry

    if merged is None and mlflow is None:
        raise typer.BadParameter("say where to: --merged DIR, --mlflow URI, or both")
    place = locate(data, None)
    version = _version(place.data, name)
    registry = Registry(place.data / "registry", _signer())
    record = registry.verify(version)
    if merged is not None:
        source = prepare(model, place.models, progress=lambda line: err().print(line)) if model else None
        exports.merged(registry, version, merged, base=source or record.base_model.path)
        out().print(f"{version} is in {shown(merged)}: load it with transformers as any model", markup=False)
    if mlflow is not None:
        run_id = exports.to_mlflow(registry, version, mlflow)
        out().print(f"{version} is run {run_id} in {mlflow}", markup=False)


@app.command(epilog="Example: thumbwheel cycles sign v3")
def sign(version: Annotated[str, typer.Argument(metavar="VERSION")], data: Data = None) -> None:
    """Sign a version by the key of THUMBWHEEL_SIGNING_KEY_FILE that was made before there was one, or with another."""
    from infra.cli.terminal import out
    from trainer.adapters.registry import Registry

    Registry(locate(data, None).data / "registry", _signer()).sign(version)
    out().print(f"{version} is signed", markup=False)


@app.command("make-key", epilog="Example: thumbwheel cycles make-key secrets/signing.key")
def make_key(file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not be there yet.")]) -> None:
    """Make a key by which versions are signed; give its file to trainer and gateways (THUMBWHEEL_SIGNING_KEY_FILE)."""
    from infra.cli.terminal import out
    from trainer.adapters.signing import make_key as make

    out().print(f"key {make(file)} is in {file}, readable by you alone: keep a copy where the registry's is not")


def _decide(name: str, data: Path | None, servers: str | None, *, approved: bool, reason: str) -> None:
    from datetime import UTC

    from infra.cli.terminal import out
    from infra.cli.versions import actor
    from trainer.adapters.events import KafkaEvents
    from trainer.adapters.registry import Registry
    from trainer.outcomes import Closer

    place = locate(data, servers)
    cycles, registry = _cycles(place.data), Registry(place.data / "registry", _signer())
    events = KafkaEvents(place.kafka, client_id="cli")
    try:
        closer = Closer(cycles, registry, events, now=lambda: datetime.now(UTC))
        event = closer.approvals.decide(name, approved=approved, actor=actor(), reason=reason)
    finally:
        events.close()
    out().print(f"{event.version} is {event.state}: {event.reason}", markup=False)


def _signer() -> Any:
    from trainer.adapters.signing import signer
    from trainer.settings import TrainerSettings

    return signer(TrainerSettings().signing_key_file)


def _cycles(data: Path) -> "Cycles":
    from trainer.adapters.cycles import Cycles

    return Cycles(data / "cycles")


def _starts(cycles: "Cycles") -> "list[CycleStart]":
    found = [cycles.folder(i).start() for i in cycles.ids()]
    return sorted((s for s in found if s is not None), key=lambda s: s.started_at)


def _find(cycles: "Cycles", name: str) -> "CycleStart":
    from schemas.errors import UnknownVersion

    starts = _starts(cycles)
    for start in starts:
        outcome = cycles.folder(start.cycle_id).outcome()
        if name == start.cycle_id or (outcome is not None and outcome.version == name):
            return start
    latest = ", ".join(s.cycle_id for s in starts[-3:]) or "none yet"
    raise UnknownVersion(f"there is no cycle {name} in {cycles.root}; the latest: {latest}")


def _version(data: Path, name: str) -> str:
    """The version of a cycle's id; any other name as it is. Raises `UnknownVersion`."""
    from schemas.errors import UnknownVersion

    if (data / "registry" / name / "record.json").is_file():
        return name
    start = _find(_cycles(data), name)
    outcome = _cycles(data).folder(start.cycle_id).outcome()
    if outcome is None or outcome.version is None:
        why = outcome.reason if outcome else "it has not ended"
        raise UnknownVersion(f"cycle {start.cycle_id} made no version: {why}")
    return outcome.version


def _status(start: "CycleStart", outcome: "Outcome | None") -> str:
    from infra.local.state import is_running

    if outcome is not None:
        return outcome.status.replace("_", " ")
    known = {True: "running", False: "cut off", None: f"begun on {start.host}"}
    return known[is_running(start.pid, start.host)]


def _row(start: "CycleStart", outcome: "Outcome | None") -> tuple[str, ...]:
    tokens = outcome.generated_tokens + outcome.trained_tokens if outcome else 0
    return (
        start.cycle_id,
        f"{start.started_at.astimezone():%Y-%m-%d %H:%M}",
        start.trigger or "",
        _styled(_status(start, outcome)),
        (outcome.version or "") if outcome else "",
        f"{outcome.seconds:.0f}" if outcome else "",
        f"{tokens:,}" if outcome else "",
        _money(outcome.money, outcome.currency) if outcome else "",
    )


def _facts(start: "CycleStart", outcome: "Outcome | None") -> dict[str, Any]:
    """A cycle as JSON: its start, then its end."""
    began = start.model_dump(mode="json", exclude={"environment", "base_model"})
    ended = outcome.model_dump(mode="json", exclude={"announced"}) if outcome else {}
    return began | ended | {"status": _status(start, outcome)}


def _told(start: "CycleStart", outcome: "Outcome | None") -> list[tuple[str, str]]:
    from infra.cli.cycle_advice import next_step

    tries = f", {start.tries} processes" if start.tries > 1 else ""
    rows = [
        ("cycle", start.cycle_id),
        ("status", _status(start, outcome)),
        ("began", f"{start.started_at.astimezone():%Y-%m-%d %H:%M:%S}, from {start.parent}{tries}"),
        ("trigger", f"{start.trigger or 'unknown'}{f': {start.why}' if start.why else ''}"),
        ("labels", str(start.labels)),
        ("version", outcome.version if outcome else ""),
        ("reason", outcome.reason if outcome else ""),
        ("next", next_step(outcome)),
    ]
    return [(title, value) for title, value in rows if value]


def _print_stages(outcome: "Outcome") -> None:
    from infra.cli.terminal import out, table

    numbers = ("seconds", "CPU s", "generated", "trained", "GPU memory", "cost")
    grid = table("stage", *numbers, right=numbers)
    for stage, cost in outcome.stages.items():
        peak = f"{cost.device_peak_bytes / 2**30:.2f} GiB" if cost.device_peak_bytes else ""
        busy = f"{cost.cpu_seconds:.1f}" if cost.cpu_seconds is not None else ""
        money = _money(cost.money, cost.currency)
        figures = (f"{cost.seconds:.1f}", busy, f"{cost.generated_tokens:,}", f"{cost.trained_tokens:,}")
        grid.add_row(stage, *figures, peak, money)
    out().print(grid)


def _print_gates(gates: "list[GateResult]") -> None:
    from infra.cli.cycle_advice import advice
    from infra.cli.terminal import out, table

    grid = table("gate", "", "detail", whole=("gate",))
    for gate in gates:
        grid.add_row(gate.name, "[green]passed[/]" if gate.passed else "[red]failed[/]", escape(gate.detail))
    out().print(grid)
    for line in advice(gates):
        out().print(f"refused by {line}", markup=False)


def _gates(data: Path, version: str | None) -> "list[GateResult]":
    """From the version's record, without what else is in it."""
    from schemas.versions import GateResult

    file = data / "registry" / (version or "") / "record.json"
    if version is None or not file.is_file():
        return []
    return [GateResult.model_validate(gate) for gate in json.loads(file.read_text(encoding="utf-8"))["gates"]]


def _files(data: Path, cycle_id: str, version: str | None) -> list[str]:
    from infra.cli.errors import shown

    folders = [data / "cycles" / cycle_id, *([data / "registry" / version] if version else [])]
    return [shown(file) for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]


def _styled(status: str) -> str:
    return f"[{STYLES.get(status, 'default')}]{status}[/]"


def _money(amount: float | None, currency: str | None) -> str:
    return "" if amount is None else f"{amount:.2f} {currency or ''}".rstrip()
