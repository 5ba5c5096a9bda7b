"""`thumbwheel score`: what the reward model says of production's answers, or of a file's."""

import sys
from typing import Annotated

import typer

from infra.cli.options import Data, ModelName, locate


def score(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many answers, the newest.")] = 256,
    version: Annotated[str | None, typer.Option("--version", help="Answers of this version alone.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="At most so old: 30m, 2h, 7d, or an ISO time.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Score a file instead: JSONL or .jsonl.gz of prompt, completion."),
    ] = None,
    reward_model: Annotated[
        str | None,
        typer.Option(
            "--reward-model", metavar="ID", help="reward-v3 or v3 (default: the newest that passed its gate)."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing to gold/scores.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    data: Data = None,
    model: ModelName = None,
) -> None:
    """Score answers with the reward model: their mean, how far its heads disagree, and drift against its training data.

    A mean score is the calibrated logit of a thumb up: below 0 a thumb down is likelier. PSI compares the scores with
    those of the answers that the reward model learned from. Scores of production are written to gold/scores, where
    `thumbwheel label` finds what is worth asking about.

    Examples:

      thumbwheel score --since 7d

      thumbwheel score --version v3 --dry-run --json

      thumbwheel score --file answers.jsonl --reward-model v2
    """
    from infra.cli.foreground import find, run_readably

    place = locate(data, None)
    command = [sys.executable, "-P", "-m", "trainer", "score", "--limit", str(limit)]
    command += ["--since", _moment(since)] if since else []
    command += ["--file", str(find(file).resolve())] if file else []
    for name, value in (("--version", version), ("--reward-model", reward_model)):
        command += [name, value] if value else []
    command += [name for name, wanted in (("--dry-run", dry_run), ("--json", json)) if wanted]
    raise typer.Exit(run_readably(place, tuple(command), model=model, settings={}))


def _moment(text: str) -> str:
    from datetime import UTC, datetime

    from infra.cli.letters import since

    return since(text, datetime.now(UTC)).isoformat()
