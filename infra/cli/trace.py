"""`thumbwheel trace`: the path of an answer, a judgement or a version."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import Data, locate

if TYPE_CHECKING:
    from rich.tree import Tree

    from infra.provenance.trace import JudgementPath, ResponsePath, Use, VersionPath

Row = dict[str, Any]
EXCERPT = 100


def trace(
    id: Annotated[str, typer.Argument(metavar="RESPONSE|RATING|VERSION", help="An id; see the examples.")],
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON object.")] = False,
) -> None:
    """Where an answer, a judgement or a version came from, and what came of it.

    A response leads to the version that gave it (its cycle, its data, its parents) and to the versions that learned
    from what was said of it. A rating or preference leads to its answers and remarks, and to the versions that learned
    from it. A version leads to its parents and to what it learned from. What ingest or refine hasn't stored yet
    (a second or two) is not seen.
    """
    from infra.cli.terminal import out
    from infra.provenance.sources import Sources
    from infra.provenance.trace import JudgementPath, ResponsePath
    from infra.provenance.trace import trace as follow
    from streams.settings import StreamSettings

    place = locate(data, None)
    lake = StreamSettings(data=place.data, kafka=place.kafka).lake
    path = follow(Sources(lake, place.data / "registry"), id)
    if as_json:
        print(json.dumps(_plain(path), ensure_ascii=False, indent=2))  # noqa: T201 - a result, to be piped
        return
    match path:
        case ResponsePath():
            out().print(_response(path))
        case JudgementPath():
            out().print(_judgement(path))
        case _:
            out().print(_version(path))


def _response(path: "ResponsePath") -> "Tree":
    tree = _tree(f"[bold]response {path.id}[/]")
    if path.output is None:
        tree.add("[yellow]its output has not come: only what was said of it is known[/]")
    else:
        row = path.output
        asked = tree.add(f"asked {_when(row['event_time'])}{_by(row.get('user_id'))}, segment {_safe(row['segment'])}")
        for message in row["prompt"]:
            asked.add(f"{message['role']}: {_cut(message['content'])}")
        tree.add(f"answered by [bold]{_safe(row['version'])}[/]: {_cut(row['completion'])}")
        tree.add(f"[dim]in the log at partition {row['kafka_partition']}, offset {row['kafka_offset']}[/]")
    _said(tree, path.feedback)
    _labels(tree, path.labels)
    became = tree.add(f"became ({len(path.judgements)})")
    for row in path.judgements:
        became.add(_concluded(row))
    _learned(tree, path.uses, path.unrecorded)
    if path.version is not None:
        tree.add(_version(path.version, "given by "))
    return tree


def _judgement(path: "JudgementPath") -> "Tree":
    last = path.revisions[-1]
    tree = _tree(f"[bold]{path.id}[/] in {path.table}")
    tree.add(_concluded(last))
    revisions = tree.add(f"revisions ({len(path.revisions)})")
    for row in path.revisions:
        weight, state = f"weight {row['weight']:g}", " [red]retracted[/]" if row["retracted"] else ""
        revisions.add(f"{row['revision']}: judged {_when(row['judged_at'])}, {weight}{state}")
    answers = tree.add(f"about {len(path.responses)} {'answer' if len(path.responses) == 1 else 'answers'}")
    for row in path.responses:
        answers.add(f"{row['response_id']} by [bold]{_safe(row['version'])}[/]: {_cut(row['completion'])}")
    _said(tree, path.feedback)
    _labels(tree, path.labels)
    _learned(tree, path.uses, path.unrecorded)
    return tree


def _version(path: "VersionPath", prefix: str = "") -> "Tree":
    tree = _tree(f"{prefix}[bold]version {_safe(path.version)}[/]")
    for event in path.events:
        why = f" ({_cut(event['reason'])})" if event.get("reason") else ""
        tree.add(f"{event['state'].replace('_', ' ')} {_when(event['event_time'])} by {_safe(event['actor'])}{why}")
    if path.parents:
        tree.add("from " + " ◄ ".join(path.parents))
    if path.children:
        tree.add("parent of " + ", ".join(path.children))
    if path.record is not None:
        record = path.record
        tree.add(f"made by cycle {record.cycle_id} on {record.created_at:%Y-%m-%d}, code {record.code_version}")
        pinned = ", ".join(f"{name} at version {v}" for name, v in record.tables.items() if v is not None)
        tree.add(f"data: {pinned}; content hash {record.content_hash[:16]}")
    if path.sets is None:
        tree.add("[yellow]its record does not name what it learned from: it is older than that, or damaged[/]")
    elif path.sets:
        learned = tree.add("learned from")
        for (name, what), count in sorted(path.sets.items()):
            learned.add(f"{count:,} x {what.replace('_', ' ')} ({name.replace('_', ' ')})")
    answers = "answer" if path.answers == 1 else "answers"
    tree.add(f"gave {path.answers:,} {answers}: {path.thumbs_up:,} thumbs up, {path.thumbs_down:,} down")
    return tree


def _said(tree: "Tree", events: Sequence[Row]) -> None:
    said = tree.add(f"said of it ({len(events)})")
    for row in events:
        text = f": {_cut(row['text'])}" if row.get("text") else ""
        said.add(f"{_when(row['event_time'])} {row['kind'].replace('_', ' ')}{_by(row.get('user_id'))}{text}")


def _labels(tree: "Tree", labels: Sequence[Row]) -> None:
    if labels:
        branch = tree.add(f"labels ({len(labels)})")
        for row in labels:
            verdict = row["verdict"].replace("_", " ")
            branch.add(f"{_when(row['event_time'])} {verdict}{_by(row['labeler_id'])}, task {_safe(row['task_id'])}")


def _learned(tree: "Tree", uses: "Sequence[Use]", unrecorded: Sequence[str]) -> None:
    if unrecorded:
        tree.add(f"[yellow]whether {', '.join(unrecorded)} learned from it is not recorded[/]")
    if not uses:
        tree.add("no version that records it has learned from it" if unrecorded else "no version has learned from it")
        return
    branch = tree.add("learned from by")
    for use in uses:
        what = "its prompt" if use.kind == "prompt" else f"weight {use.weight:.3g}"
        verdict = "" if use.passed else " [red](rejected)[/]"
        branch.add(f"[bold]{use.version}[/]{verdict}: {use.set.replace('_', ' ')} set, {what}, cycle {use.cycle_id}")


def _concluded(row: Row) -> str:
    """One line on a rating or preference."""
    retracted = " [red]retracted[/]" if row["retracted"] else ""
    source = row["source"].replace("_", " ")
    if "rating_id" in row:
        thumb = "good" if row["label"] else "bad"
        return f"{row['rating_id']}: {thumb}, weight {row['weight']:g} ({source}){retracted}"
    versions = f"{row['chosen_version'] or 'a human'} over {row['rejected_version'] or 'a human'}"
    pair = f"{_cut(row['chosen'], 40)} [dim]over[/] {_cut(row['rejected'], 40)}"
    return f"{row['preference_id']}: {_safe(versions)}, weight {row['weight']:g} ({source}){retracted}: {pair}"


def _tree(label: str) -> "Tree":
    from rich.tree import Tree

    return Tree(label, guide_style="dim")


def _by(who: str | None) -> str:
    return f" by {_safe(who)}" if who else ""


def _when(value: Any) -> str:
    from infra.provenance.trace import moment

    return moment(value)


def _safe(text: str) -> str:
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else " " for c in text))


def _cut(text: str, limit: int = EXCERPT) -> str:
    line = " ".join(text.split())
    return _safe(line if len(line) <= limit else line[: limit - 1] + "…")


def _plain(value: Any) -> Any:
    """Whatever a path holds, as JSON knows it."""
    from dataclasses import fields, is_dataclass

    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        pairs = value.items()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return {"/".join(k) if isinstance(k, tuple) else str(k): _plain(v) for k, v in pairs}  # pyright: ignore
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
