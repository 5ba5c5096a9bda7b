"""What simulated users like: a taste is any function of a prompt and a response that returns a number.

Higher is better; the scale is free, because users compare an answer with the answers that they have seen
(see `users.scale_of`). The same function judges the versions at the end of a demo: it is the truth that
the loop never sees, except through thumbs and comparisons.
"""

import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

from schemas.errors import SettingsError, ThumbwheelError

Taste = Callable[[str, str], float]

DEFAULT = "infra.simulate.tastes:considerate"

COURTEOUS = (
    "thank", "thanks", "please", "glad", "happy to", "of course", "certainly", "sorry", "apologize", "welcome",
    "hope", "let me know", "feel free", "kindly", "appreciate", "my pleasure", "gladly", "take care",
)  # fmt: skip
"""Wording that a considerate user likes to read. Whole words, case ignored."""

RUDE = (
    "stupid", "idiot", "whatever", "not my problem", "shut up", "annoying", "dumb", "go away", "don't bother",
    "who cares", "ridiculous", "waste of time", "leave me alone", "figure it out yourself",
)  # fmt: skip
"""Rude or dismissive wording. Whole words, case ignored."""

FINISHED, COURTEOUS_WORD, COURTEOUS_MOST, RUDE_WORD, RUDE_MOST = 1.0, 0.5, 1.0, 0.75, 1.5
PATIENCE_WORDS = 25
LIST_PENALTY, EMPTY = 0.5, -3.0

_LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)]|#+)\s", re.MULTILINE)


def considerate(prompt: str, response: str) -> float:
    """The taste of people who want a short, finished, friendly answer; between -3 and 2.

    +1 for an answer that ends as a sentence does; +0.5 for each courteous wording, at most +1; -0.75 for each rude
    one, at most -1.5; -0.5 for every 25 words beyond the first 25, at most -2; -0.5 for a list or a heading, which
    nobody asked for. An empty answer is worth -3. The prompt makes no difference.
    """
    text = response.strip()
    if not text:
        return EMPTY
    finished = FINISHED if text.rstrip("\"')*”’").endswith((".", "!", "?")) else 0.0
    courteous = min(COURTEOUS_WORD * _count(_COURTEOUS, text), COURTEOUS_MOST)
    rude = min(RUDE_WORD * _count(_RUDE, text), RUDE_MOST)
    long = min(0.5 * max(0, len(text.split()) - PATIENCE_WORDS) / PATIENCE_WORDS, 2.0)
    listed = LIST_PENALTY if _LIST_LINE.search(text) else 0.0
    return finished + courteous - rude - long - listed


def load(name: str) -> Taste:
    """The taste called `module:function`, found on the path or in the working directory, and tried once.

    Raises `SettingsError` when there is no such function or it is no taste.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise SettingsError(f"--taste {name!r} is not of the form module:function, such as {DEFAULT}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SettingsError(
            f"can't import the module {module_name!r} of --taste {name}: {_named(error)}; it is looked for in "
            f"{here} and on the Python path"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SettingsError(f"--taste {name}: {module.__file__ or module_name} has no function {function_name!r}")
    taste = checked(function, name)
    try:
        taste("What are your opening hours?", "We are open from nine to five. Thank you for asking!")
    except TasteFailed as error:
        raise SettingsError(str(error)) from error
    return taste


class TasteFailed(ThumbwheelError):
    """A taste raised, or returned something that is no finite number."""


def checked(taste: Callable[[str, str], object], name: str) -> Taste:
    """The taste, guarded: whatever goes wrong in it becomes a `TasteFailed` that shows the answer it failed on."""

    def guarded(prompt: str, response: str) -> float:
        try:
            value = float(taste(prompt, response))  # type: ignore[arg-type]  # anything that float() takes will do
        except Exception as error:
            raise TasteFailed(f"the taste {name} failed with {_named(error)} {_shown(prompt, response)}") from error
        if not math.isfinite(value):
            raise TasteFailed(f"the taste {name} returned {value}, not a finite number, {_shown(prompt, response)}")
        return value

    return guarded


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _shown(prompt: str, response: str) -> str:
    return f"on the prompt {prompt[:80]!r} and the response {response[:80]!r}; mend the function and start again"


def _pattern(wordings: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(re.escape(w) for w in wordings) + r")\b", re.IGNORECASE)


_COURTEOUS, _RUDE = _pattern(COURTEOUS), _pattern(RUDE)


def _count(pattern: re.Pattern[str], text: str) -> int:
    """How many different wordings of the list occur: saying "please" five times is no politer than once."""
    return len({found.lower() for found in pattern.findall(text.replace("’", "'"))})
