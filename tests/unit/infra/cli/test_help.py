import pytest
from typer.main import get_command
from typer.testing import CliRunner

from infra.cli.app import app

GROUPS = ("versions", "topics", "models", "tables", "dlq", "keys", "cycles")
COMMANDS = (
    "demo", "up", "label", "replay", "train", "doctor", "gateway", "rollout", "ingest", "refine", "agents", "trainer",
    "versions list", "versions show", "versions promote", "versions rollback", "topics create", "topics describe",
    "topics copy", "models prepare", "trace", "erase", "tables list", "tables history", "tables diff", "tables show",
    "tables upkeep", "tables export", "tables import", "tables rebuild", "dlq list", "dlq show", "dlq retry",
    "dlq drop", "keys create", "keys list", "keys revoke", "keys rotate", "lab", "score", "distill",
    "cycles list", "cycles show", "cycles run", "cycles approve", "cycles decline", "cycles reproduce", "cycles export",
    "cycles sign", "cycles make-key",
)  # fmt: skip


def test_the_list_of_commands_here_is_that_of_the_program() -> None:
    found = getattr(get_command(app), "commands", {})
    assert set(found) == {name.split()[0] for name in COMMANDS}
    for group in GROUPS:
        assert {f"{group} {name}" for name in found[group].commands} == {c for c in COMMANDS if c.startswith(group)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert f"thumbwheel {command}" in shown.output


def test_the_program_alone_lists_its_commands() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert all(name.split()[0] in shown.output for name in COMMANDS)
