"""`thumbwheel distill`: a smaller student of a version, with a table of the two side by side."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from infra.cli.options import Bootstrap, Data, Place, locate

STEPS = ("prepare", "answers", "supervised", "on_policy", "evaluate", "write")
STOPPED = 130
"""What the trainer's program ends with where it was stopped."""
KEPT = 2
"""Answers kept unless it is said otherwise, or there are fewer."""


def distill(
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            metavar="MODEL",
            help="What the student is before it learns: tiny, smollm2, a folder, or a Hugging Face id.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option("--layers", min=1, help="Instead: so many of the teacher's own blocks.", show_default=False),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="VERSION", help="A version, or base (default: the live one)."),
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", min=2, help="Training prompts at most (256).", show_default=False)
    ] = None,
    answers: Annotated[
        int | None, typer.Option("--answers", min=1, help="The teacher's answers to each (4).", show_default=False)
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Of these the best, to learn from (2).", show_default=False)
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option("--lora", metavar="RANK", min=1, help="Train an adapter, not every weight.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Its folder (default <data>/students/<id>).", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The teacher's base model, where it is no longer at the place that its record names.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a smaller student from a version's answers and rewards, and hold it to the gates of a cycle.

    First it learns from the best of the teacher's answers, then from its own, which the teacher judges token by token.
    The tables show its quality, latency, size and cost beside the teacher's. Nothing is registered: the folder is a
    model of its own, for `thumbwheel up --model FOLDER` or transformers. After Ctrl-C the same command goes on.
    Exit code 3: a gate refused it (it is kept, with its verdict). More settings: THUMBWHEEL_DISTILL__...

    Examples:

      thumbwheel distill --layers 20                    the live version, on 20 of its 30 blocks

      thumbwheel distill --teacher v3 --student ./small-model --output ./student

      thumbwheel distill --layers 15 --prompts 64 --answers 8 --keep 1 --json
    """
    from infra.cli.foreground import run_with_bar
    from infra.cli.terminal import err

    if (student is None) == (layers is None):
        raise typer.BadParameter("say what the student is: either --student MODEL or --layers N")
    place = locate(data, bootstrap_servers)
    if keep is None and answers is not None:
        keep = min(answers, KEPT)
    given = {"prompts": prompts, "answers": answers, "keep": keep, "lora_rank": lora}
    settings = {f"THUMBWHEEL_DISTILL__{name.upper()}": str(n) for name, n in given.items() if n is not None}
    arguments = _arguments(place, student, layers, teacher, output)
    base = model or place.model or _base_of(place.data, teacher)
    code, told = run_with_bar(place, "distill", *arguments, model=base, settings=settings, stages=STEPS)
    if code == STOPPED:
        err().print("stopped; the same command goes on")
    if told and as_json:
        print(json.dumps(told))  # noqa: T201 - a result, to be piped
    elif told:
        _show(told)
    raise typer.Exit(code)


def _arguments(
    place: Place, student: str | None, layers: int | None, teacher: str | None, output: Path | None
) -> list[str]:
    """The trainer's, with the student's model made ready."""
    from infra.cli.terminal import err
    from infra.local.processes import public_name
    from infra.models.catalog import prepare

    arguments = ["--teacher", teacher] if teacher else []
    arguments += ["--output", str(output.expanduser().absolute())] if output else []
    if layers is not None:
        return [*arguments, "--layers", str(layers)]
    assert student is not None
    source = prepare(student, place.models, progress=lambda line: err().print(line))
    return [*arguments, "--student", source, "--student-name", public_name(student)]


def _base_of(data: Path, teacher: str | None) -> str | None:
    """Where the base of the teacher (or of the newest version) was, by its record, if it still is there."""
    records = sorted((data / "registry").glob("v*/record.json"), key=lambda f: f.stat().st_mtime)
    named = data / "registry" / (teacher or "") / "record.json"
    for file in (named, *reversed(records)):
        if file.is_file() and file.parent.parent == data / "registry":
            path = str(json.loads(file.read_text(encoding="utf-8"))["base_model"]["path"])
            return path if Path(path).is_dir() else None
    return None


def _show(told: dict[str, Any]) -> None:
    from infra.cli.cycle_advice import advice
    from infra.cli.errors import shown
    from infra.cli.terminal import out, table
    from schemas.versions import GateResult

    quality = told["quality"]
    numbers = ("student", "teacher", "its start", "student / teacher")
    grid = table(f"on {quality['prompts']} held-out prompts", *numbers, right=numbers)
    for row in told["table"]:
        grid.add_row(*(escape(row[name]) for name in ("what", "student", "teacher", "start", "ratio")))
    out().print(grid)
    gates = [GateResult.model_validate(gate) for gate in told["gates"]]
    verdicts = table("gate", "", "detail", whole=("gate",))
    for gate in gates:
        verdicts.add_row(gate.name, "[green]passed[/]" if gate.passed else "[red]failed[/]", escape(gate.detail))
    for missing in told["not_asked"]:
        verdicts.add_row(missing["name"], "[yellow]not asked[/]", escape(missing["reason"]))
    out().print(verdicts)
    for line in advice(gates):
        out().print(f"refused by {line}", markup=False)
    folder = shown(Path(told["folder"]))
    if told["passed"]:
        out().print(f"{told['id']} passed its gates: serve it with `thumbwheel up --model {folder}`", markup=False)
    else:
        out().print(f"{told['id']} was refused; it is kept in {folder} with its verdict", markup=False)
