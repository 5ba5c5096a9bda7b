from dataclasses import replace
from pathlib import Path

from infra.cli.up import changes
from infra.local.supervisor import Status

RUNS = Status("ingest", pid=10, running=True, restarts=0, exit_code=None, given_up=False, log=Path("ingest.log"))
ENDED = replace(RUNS, pid=None, running=False, exit_code=-9)
AGAIN = replace(RUNS, pid=11, restarts=1, exit_code=-9)


def test_nothing_is_said_while_nothing_happens() -> None:
    assert changes({}, {"ingest": RUNS}) == []
    assert changes({"ingest": RUNS}, {"ingest": RUNS}) == []


def test_an_end_is_told_with_its_code_and_where_to_look() -> None:
    (line,) = changes({"ingest": RUNS}, {"ingest": ENDED})
    assert "ended with code -9" in line
    assert "ingest.log" in line


def test_a_restart_is_told_also_when_the_end_was_not_seen() -> None:
    for before in (RUNS, ENDED):
        (line,) = changes({"ingest": before}, {"ingest": AGAIN})
        assert "runs again as 11" in line
