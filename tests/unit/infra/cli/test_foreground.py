import json

from infra.cli.foreground import readable


def line(**fields: object) -> str:
    return json.dumps({"time": "2026-11-21T10:20:30.123+00:00", "process": "trainer", "logger": "t", **fields}) + "\n"


def test_a_log_line_is_shown_with_its_time_and_facts() -> None:
    assert readable(line(level="info", message="stage done", stage="ppo")) == "10:20:30 stage done  stage=ppo"


def test_an_error_looks_like_every_error() -> None:
    assert readable(line(level="error", message="too few; wait for more")) == "error: too few; wait for more"


def test_what_is_no_log_line_is_shown_as_it_is() -> None:
    assert readable("Traceback (most recent call last):\n") == "Traceback (most recent call last):"
    assert readable("3\n") == "3"
