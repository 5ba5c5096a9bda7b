"""What the default taste likes, and how a user's own taste is loaded."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.simulate import tastes
from infra.simulate.tastes import TasteFailed, considerate
from schemas.errors import SettingsError

PROMPT = "Where is my order?"


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("", -3.0),
        ("   \n", -3.0),
        ("It will arrive", 0.0),
        ("It will arrive tomorrow.", 1.0),
        ("Thank you, it will arrive tomorrow.", 1.5),
        ("Thank you! Please let me know if it does not.", 2.0),
        ("thank you thank you thank you.", 1.5),
        ("Whatever, that is not my problem.", -0.5),
        ("Whatever, you stupid idiot.", -0.5),
        ("- one\n- two.", 0.5),
        ("He said “it is on its way.”", 1.0),
        (" ".join(["word"] * 50) + ".", 0.5),
    ],
)
def test_the_considerate_taste_is_the_sum_that_its_docstring_names(response: str, value: float) -> None:
    assert considerate(PROMPT, response) == pytest.approx(value)


def test_rude_wording_is_matched_as_whole_words_only() -> None:
    assert considerate(PROMPT, "The dumbbell is on its way.") == 1.0


def write(folder: Path, body: str) -> None:
    (folder / "mymodule_for_tastes.py").write_text(body)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mymodule_for_tastes", raising=False)
    yield tmp_path
    sys.modules.pop("mymodule_for_tastes", None)


def test_a_taste_in_the_working_directory_is_found(outside: Path) -> None:
    write(outside, "def short(prompt, response):\n    return -len(response)\n")
    assert tastes.load("mymodule_for_tastes:short")("a", "four") == -4.0


@pytest.mark.parametrize(
    ("name", "body", "hint"),
    [
        ("no_colon", "", "module:function"),
        ("mymodule_for_tastes:absent", "x = 1\n", "has no function 'absent'"),
        ("mymodule_for_tastes:x", "x = 1\n", "has no function 'x'"),
        ("there_is_no_such_module:f", "", "can't import"),
        ("mymodule_for_tastes:f", "raise RuntimeError('boom')\n", "RuntimeError: boom"),
        ("mymodule_for_tastes:f", "def f(prompt):\n    return 1\n", "TypeError"),
        ("mymodule_for_tastes:f", "def f(prompt, response):\n    return 'good'\n", "ValueError"),
        ("mymodule_for_tastes:f", "def f(prompt, response):\n    return float('nan')\n", "not a finite number"),
    ],
)
def test_a_taste_that_cannot_work_is_refused_with_what_is_wrong(outside: Path, name: str, body: str, hint: str) -> None:
    write(outside, body)
    with pytest.raises(SettingsError, match=hint):
        tastes.load(name)


def test_a_taste_that_fails_later_names_the_answer_it_failed_on(outside: Path) -> None:
    write(outside, "def f(prompt, response):\n    return 1 / len(response)\n")
    taste = tastes.load("mymodule_for_tastes:f")
    with pytest.raises(TasteFailed, match=r"ZeroDivisionError.*Where is my order"):
        taste(PROMPT, "")
