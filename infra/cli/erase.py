"""`thumbwheel erase`: a person's content out of tables, old table versions and the log."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import Bootstrap, Data, Place, locate

if TYPE_CHECKING:
    from infra.provenance.erase import Erased
    from infra.provenance.footprint import Footprint, Learned

SOURCE = "infra/cli/erase"


def erase(
    user: Annotated[str, typer.Option("--user", metavar="USER", help="The person's id, as the product sends it.")],
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is stored of them.")] = False,
    truncate_log: Annotated[
        bool,
        typer.Option(
            "--truncate-log",
            help="Also remove from the log, at once, everything that the tables hold, of everybody: consumers of your"
            " own lose what they have not read. Without it retention removes it in time.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    pause_seconds: Annotated[
        float, typer.Option(min=0.0, help="How long to wait before looking for what came back.")
    ] = 3.0,
) -> None:
    """Remove a person's content: their answers, ratings, comments, corrections and labels.

    It goes from every table and from old table versions, which can't be read any more afterwards (nor can cycles that
    pinned them be made again). Ratings that other people gave stay. An audit event records what was done, under a
    hash of the id. At the end stand the versions that had learned from the person: a model can't unlearn; retire
    those versions if you have to. After a kill, run the same command again.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from infra.cli.terminal import err, out
    from infra.provenance import log
    from infra.provenance.erase import derived_folders
    from infra.provenance.erase import erase as carry_out
    from infra.provenance.footprint import footprint, learned
    from infra.provenance.sources import Sources
    from streams.refine import burst_rule
    from streams.settings import StreamSettings

    place = locate(data, bootstrap_servers)
    settings = StreamSettings(data=place.data, kafka=place.kafka)
    sources, plans = Sources(settings.lake, place.data / "registry"), place.data / "erasures"
    forms = [f for f in _forms(user, place) if not footprint(sources, f).empty or _cut_off(plans, f)]
    if not forms:
        out().print("nothing is stored of this user; check the id (`thumbwheel tables show responses --where ...`)")
        return
    for form in forms:
        if form != user:
            out().print(f"under {form}, which stands for that address in events:")
        found = footprint(sources, form)
        _show_found(found)
        _show_learned(learned(sources, found), sources.unrecorded())
    if dry_run:
        return
    if not yes:
        typer.confirm("This can't be undone. Erase it?", abort=True)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=err(), transient=True) as progress:
        task = progress.add_task("waiting until ingest has stored what is in the log", total=None)
        log.wait_until_stored(place.kafka, sources, seconds=60.0)
        reports: list[Erased] = []
        for form in forms:
            done = carry_out(
                sources,
                form,
                plans,
                pause_seconds=pause_seconds,
                burst=burst_rule(settings.raters),
                derived=derived_folders(place.data),
                progress=lambda text: progress.update(task, description=text),
            )
            log.withdraw_tasks(place.kafka, done.found.tasks)
            reports.append(done)
        progress.update(task, description="the log")
        truncated = log.truncate(place.kafka, sources) if truncate_log else {}
        for done in reports:
            _audit(place, done, truncated)
    for done in reports:
        _show_done(done)
    _show_log(truncated, asked=truncate_log)


def _forms(user: str, place: Place) -> list[str]:
    """The id as it was given and, where it is an address, as the gateway writes it (if this machine has the key)."""
    from serving.adapters.keys import pseudonym_key
    from serving.core.pseudonyms import is_personal, protected
    from serving.settings import GatewaySettings

    file = GatewaySettings(data=place.data).pseudonym_key_file
    if not is_personal(user) or not file.is_file():
        return [user]
    return [user, protected(user, pseudonym_key(file, ours=False).key) or user]


def _cut_off(plans: Path, user: str) -> bool:
    from infra.provenance.erase import unfinished

    return user in unfinished(plans)


def _show_found(found: "Footprint") -> None:
    from infra.cli.terminal import out, table

    grid = table("stored of them", "", right=("",))
    for what, ids in (
        ("answers that they got", found.responses),
        ("other people's answers that they rated", found.touched),
        ("remarks and ratings, theirs and on their answers", found.feedback_events),
        ("labels, theirs and on their answers", found.label_events),
        ("label tasks that quote them", found.tasks),
        ("ratings and preferences made of it", found.judgements),
        ("dead letters that name them", found.dead_letters),
    ):
        grid.add_row(what, f"{len(ids):,}")
    out().print(grid)


def _show_learned(versions: "list[Learned]", unrecorded: tuple[str, ...]) -> None:
    from infra.cli.terminal import out, table

    if unrecorded:
        out().print(f"[yellow]whether {', '.join(unrecorded)} learned from them is not recorded[/]")
    if not versions and not unrecorded:
        out().print("no version has learned from them")
    if not versions:
        return
    grid = table("version", "cycle", "data set", "set", "judgements", "prompts", right=("judgements", "prompts"))
    for row in versions:
        grid.add_row(
            row.version,
            row.cycle_id,
            row.content_hash[:16],
            row.set.replace("_", " "),
            f"{row.judgements:,}",
            f"{row.prompts:,}",
        )
    out().print("versions that learned from them, or were judged by them:")
    out().print(grid)


def _show_done(done: "Erased") -> None:
    from infra.cli.terminal import out, table

    grid = table("table", "rows deleted", "rows computed anew", right=("rows deleted", "rows computed anew"))
    for name in sorted({*done.rows, *done.renewed}):
        grid.add_row(name, f"{done.rows.get(name, 0):,}", f"{done.renewed.get(name, 0):,}")
    out().print(grid)
    if done.samples:
        out().print(f"{done.samples} sampled answers were taken out of version records")


def _show_log(truncated: dict[str, int], *, asked: bool) -> None:
    from datetime import UTC, datetime

    from infra.cli.terminal import out
    from infra.provenance.log import retained

    if asked:
        records = sum(truncated.values())
        out().print(f"the log let go of {records:,} records of all users, which the tables hold (but for the erased)")
    else:
        out().print("the log still holds it, until:")
        for kept in retained(datetime.now(UTC)):
            out().print(f"  {kept.until.astimezone():%Y-%m-%d %H:%M}  {kept.topic}")
    out().print("erased; files that were exported earlier are not reached (`thumbwheel tables show audit` lists them)")


def _audit(place: Place, done: "Erased", truncated: dict[str, int]) -> None:
    import json

    from infra.cli.versions import actor
    from infra.local.log import Publisher
    from schemas import topics
    from schemas.audit import Audit
    from schemas.envelope import new_event
    from schemas.ids import content_id

    detail = {
        "rows": done.rows,
        "renewed": done.renewed,
        "samples": done.samples,
        "truncated": truncated,
        "learned": sorted({row.version for row in done.learned}),
    }
    audit = Audit(
        actor=actor(),
        action="erasure",
        target=content_id("user", done.found.user),
        detail=json.dumps(detail, sort_keys=True),
    )
    publisher = Publisher(place.kafka)
    publisher.publish(topics.AUDIT, new_event(audit, source=SOURCE))
    publisher.flush()
