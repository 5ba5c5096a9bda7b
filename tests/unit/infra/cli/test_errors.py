import errno
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from infra.cli.errors import describe
from schemas.errors import BrokerUnavailable


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from infra.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BrokerUnavailable("it is\ngone"), "it is gone"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "a.txt: No such file; check the path"),
        (ModuleNotFoundError("this needs tables >= 3"), "this needs tables >= 3; run `make setup`"),
        (ModuleNotFoundError("no", name="faust"), "the package faust is not installed; run `make setup`"),
        (KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "denied")),
         "the broker refused: denied; see `thumbwheel doctor`"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_that_says_what_to_do(error: Exception, line: str) -> None:
    assert describe(error) == line


def test_an_error_goes_to_stderr_with_exit_code_1(tmp_path: Path) -> None:
    ended = run("replay", "no-such-file", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: there is no file no-such-file; check the path\n"


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    for arguments in (("--debug", "replay", "no-such-file"), ("replay", "no-such-file", "--debug")):
        ended = run(*arguments, cwd=tmp_path)
        assert ended.returncode == 1
        assert "Traceback" in ended.stderr


def test_wrong_usage_has_exit_code_2(tmp_path: Path) -> None:
    assert run("train", cwd=tmp_path).returncode == 2
    assert run("no-such-command", cwd=tmp_path).returncode == 2
