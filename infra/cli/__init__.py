"""The command `thumbwheel`: one file for each group of subcommands. Each imports what it needs when it runs."""

import sys


def main() -> None:
    """The entry point. An error is one line on stderr and exit code 1; with --debug it is a traceback."""
    from infra.cli.app import app
    from infra.cli.errors import describe

    # Wherever it stands: whoever adds it adds it at the end of the line that failed.
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(arguments, prog_name="thumbwheel")
    except Exception as error:
        if debug:
            raise
        sys.stderr.write(f"error: {describe(error)}\n")
        sys.exit(1)
