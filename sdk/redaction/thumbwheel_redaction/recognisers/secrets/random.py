"""Strings that look drawn at random, behind a word such as `key` or `secret`.

Source: Shannon's entropy of the string's own characters, as secret scanners use it; a random string of 20 of the 64
base64 characters has about 4.0 bits a character, 32 hexadecimal digits about 3.6, an English word under 3.2.

Without such a word a hash, an id or an identifier in code looks the same, and is left alone.
"""

import re
from collections import Counter
from collections.abc import Iterator
from math import log2

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser, lower
from thumbwheel_redaction.rules import REACH, places

_STEMS = ("key", "secret", "token", "credential", "webhook", "bearer")
_KEY_OF = re.compile(
    r"(?:api|access|secret|private|licen[cs]e|account|signing|encryption|auth|my|the|your|this|service)[ _-]?\Z",
    re.IGNORECASE,
)
_LONGEST_KEY_OF = 11
_START = re.compile(r"(?<![0-9A-Za-z+/=_.#-])[0-9A-Za-z+/=_-]{20}")
_STRING = re.compile(r"[0-9A-Za-z+/=_-]*+")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F-]*+")

_ENTROPY, _ENTROPY_HEXADECIMAL = 3.5, 3.0  # bits a character
_SHORTEST, _SHORTEST_HEXADECIMAL = 20, 32
_LONGEST_SEGMENT_OF_A_PATH = 16
_LONG = 32


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """The first long string within reach of each word, if it looks random."""
    for word in places(lower(text), _STEMS, start, end):
        if text[word.start : word.end].lower() == "key" and not _is_a_secret_key(text, word.start):
            continue
        first = _START.search(text, word.end, word.end + REACH + _SHORTEST)
        if first is None:
            continue
        string = _STRING.match(text, first.start())
        assert string is not None  # it matches nothing, too
        if len(string[0]) >= _SHORTEST and looks_random(string[0]):
            yield Span(*string.span())


def _is_a_secret_key(text: str, start: int) -> bool:
    return _KEY_OF.search(text[max(0, start - _LONGEST_KEY_OF) : start]) is not None


def looks_random(string: str) -> bool:
    """Capitals, small letters and digits, or hexadecimal digits, in an even mix."""
    digits = sum(character.isdigit() for character in string)
    letters = sum(character.isalpha() for character in string)
    if not digits or not letters:
        return False
    hexadecimal = _HEXADECIMAL.fullmatch(string)
    if hexadecimal is not None:
        return len(string) >= _SHORTEST_HEXADECIMAL and entropy(string) >= _ENTROPY_HEXADECIMAL
    longest_segment = max(len(segment) for segment in string.split("/"))
    mixed = string != string.lower() and string != string.upper() and (digits > 1 or len(string) >= _LONG)
    return mixed and longest_segment >= _LONGEST_SEGMENT_OF_A_PATH and entropy(string) >= _ENTROPY


def entropy(string: str) -> float:
    """Bits a character, from how often each occurs in the string itself."""
    return -sum(n / len(string) * log2(n / len(string)) for n in Counter(string).values())


RANDOM = Recogniser("random", Kind.SECRET, find, digits=1, words=_STEMS)
