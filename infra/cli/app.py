"""The command's table of contents. Subcommands import what is heavy when they run, so that --help answers at once."""

from typing import Annotated

import typer

from infra.cli import (
    access,
    cycles,
    demo,
    distill,
    dlq,
    doctor,
    erase,
    lab,
    label,
    models,
    rebuild,
    replay,
    score,
    services,
    tables,
    topics,
    trace,
    train,
    up,
    versions,
)

app = typer.Typer(
    help="Learn from thumbs: Kafka to Delta to PPO and back.",
    epilog="Begin with `thumbwheel demo --model tiny`, or with `thumbwheel up` and `thumbwheel doctor`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback where there is an error.")] = False,
) -> None:
    """Thumbs turn the wheel: people's ratings of a language model's answers, through Kafka into Delta tables, into
    preferences, a reward model and a better policy, which the running gateway serves."""


for command in (demo.demo, up.up):
    app.command(rich_help_panel="Run it")(command)
app.command(rich_help_panel="Run it", epilog=lab.EPILOG)(lab.lab)
for command in (label.label, replay.replay, train.train, score.score, distill.distill):
    app.command(rich_help_panel="Teach it")(command)
app.command(
    rich_help_panel="Follow the data",
    epilog="Examples: thumbwheel trace chatcmpl-… | thumbwheel trace rating-chatcmpl-… | thumbwheel trace v1 --json",
)(trace.trace)
tables.app.command(epilog="Examples: thumbwheel tables rebuild --check | thumbwheel tables rebuild")(rebuild.rebuild)
app.add_typer(tables.app, name="tables", rich_help_panel="Follow the data")
app.add_typer(dlq.app, name="dlq", rich_help_panel="Follow the data")
app.command(
    rich_help_panel="Follow the data",
    epilog="Examples: thumbwheel erase --user user-7 --dry-run | thumbwheel erase --user user-7 --truncate-log",
)(erase.erase)
app.add_typer(cycles.app, name="cycles", rich_help_panel="Look after it")
app.add_typer(versions.app, name="versions", rich_help_panel="Look after it")
app.add_typer(access.app, name="keys", rich_help_panel="Look after it")
app.add_typer(topics.app, name="topics", rich_help_panel="Look after it")
app.add_typer(models.app, name="models", rich_help_panel="Look after it")
app.command(rich_help_panel="Look after it")(doctor.doctor)
services.add_to(app, panel="One service in the foreground")
