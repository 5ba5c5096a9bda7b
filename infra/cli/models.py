"""`thumbwheel models`: base models, without a hub."""

from typing import Annotated

import typer

app = typer.Typer(help="Prepare a base model for use.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Prepare a base model for use."""


@app.command(epilog="Example: thumbwheel models prepare smollm2")
def prepare(
    name: Annotated[str, typer.Argument(help="smollm2, tiny, a folder, or a Hugging Face id.", metavar="MODEL")],
) -> None:
    """Make a base model ready, if it isn't, and print where it is. THUMBWHEEL_MODELS names the folder for it."""
    from infra import settings as reader
    from infra.cli.terminal import err, out
    from infra.models.catalog import prepare as make

    found = make(name, reader.load().models_folder(), progress=lambda line: err().print(line))
    out().print(found)
