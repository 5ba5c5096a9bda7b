"""What the recognisers are made of: edges, key words nearby, and a rule from a pattern and a check.

No pattern repeats anything without a bound, save one that is a single class of characters from end to end: so an
attempt at one place costs at most a constant, and a search is linear in the text. A test reads the patterns for that.
"""

import re
from collections.abc import Callable, Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.recogniser import Find

LEFT = r"(?<![0-9A-Za-z_])(?<![0-9A-Za-z]-)(?<![0-9][.,/+])"
"""A number or code begins here, and isn't the rest of a longer one. ASCII on purpose: Chinese or Japanese text puts no
space between a word and a number."""

RIGHT = r"(?![0-9A-Za-z_])(?![-.,/+][0-9])"
"""A number or code ends here, and doesn't go on."""

REACH = 40  # characters in front of a number in which a key word counts


def words(*alternatives: str) -> re.Pattern[str]:
    """A pattern of key words, in whatever case, at the beginning of a word."""
    return re.compile(r"(?<![^\W_])(?:" + "|".join(alternatives) + ")", re.IGNORECASE)


def near(text: str, start: int, key_words: re.Pattern[str], reach: int = REACH) -> bool:
    """Whether one of the key words stands at most so many characters in front of `start`."""
    return key_words.search(text, max(0, start - reach), start) is not None


def digits(text: str) -> str:
    """The digits of a text, without what separates them."""
    return "".join(character for character in text if character.isdigit())


def alphanumeric(text: str) -> str:
    """The letters (as capitals) and digits of a text."""
    return "".join(character for character in text if character.isalnum()).upper()


def matching(
    pattern: re.Pattern[str],
    valid: Callable[[str], bool] = lambda _: True,
    *,
    key_words: re.Pattern[str] | None = None,
) -> Find:
    """A rule: what the pattern matches, if it is valid and, where key words are given, one of them stands in front."""

    def find(text: str, start: int, end: int) -> Iterator[Span]:
        for match in pattern.finditer(text, start, end):
            if valid(match[0]) and (key_words is None or near(text, match.start(), key_words)):
                yield Span(*match.span())

    return find


def places(small: str, stems: tuple[str, ...], start: int, end: int) -> Iterator[Span]:
    """Where each of the stems stands in a text in small letters, one stem after the other. Much faster than a pattern
    of alternatives, which tries them all at every character."""
    for stem in stems:
        place = small.find(stem, start, end)
        while place >= 0:
            yield Span(place, place + len(stem))
            place = small.find(stem, place + len(stem), end)
