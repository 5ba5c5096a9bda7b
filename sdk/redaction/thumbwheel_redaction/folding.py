"""The form of a text in which values are looked for: look-alikes replaced, invisible characters left out.

`４１１１` in full-width digits, a non-breaking space in a phone number, a zero-width space inside an e-mail address or
keycap digits must not hide a value. Sources: Unicode Standard Annex 15 (compatibility forms, NFKC), UTS 46 (the full
stops that separate labels), general categories Nd (decimal digits of every script), Zs (spaces), Pd (dashes), Cf and
Me (characters without a place of their own).

Not folded: letters of other scripts that look like Latin ones (UTS 39 confusables). Real values hold them rarely, and
to fold them would make words of other languages look like key words.
"""

import unicodedata
from dataclasses import dataclass
from functools import cached_property

from thumbwheel_redaction.findings import Span

_CACHED_CHARACTERS = 20_000  # more than any language uses, and a bound on what hostile text can make us remember

_OWN_FORMS = {
    "。": ".",  # ideographic full stop, and its half-width form
    "｡": ".",
    "−": "-",  # minus sign
    "⁃": "-",  # hyphen bullet
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "\u034f": "",  # combining grapheme joiner
    "\u115f": "",  # Hangul fillers: letters that show nothing
    "\u1160": "",
    "\u3164": "",
    "\uffa0": "",
}
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)


def folded_character(character: str) -> str:
    """What stands for a character: itself, another one, several, or nothing."""
    if character in _OWN_FORMS:
        return _OWN_FORMS[character]
    match unicodedata.category(character):
        case "Cf" | "Me":
            return ""
        case "Mn" if ord(character) in _VARIATION_SELECTORS:
            return ""
        case "Zs":
            return " "
        case "Pd":
            return "-"
        case "Nd":
            return str(unicodedata.decimal(character))
        case _:
            compatible = unicodedata.normalize("NFKC", character)
            return compatible if compatible.isascii() else character


class _Folds(dict[int, str]):
    """Code point -> folded form, computed when first asked for."""

    def __missing__(self, code: int) -> str:
        form = folded_character(chr(code))
        if len(self) < _CACHED_CHARACTERS:
            self[code] = form
        return form


_FOLDS = _Folds({code: chr(code) for code in range(128)})


@dataclass(frozen=True)
class Folded:
    """A text and the form of it that is searched."""

    original: str
    text: str

    @cached_property
    def _origins(self) -> list[int]:
        """For each folded character the place of the character it came from, and the original's length at the end."""
        origins: list[int] = []
        for place, character in enumerate(self.original):
            origins.extend([place] * len(_FOLDS[ord(character)]))
        origins.append(len(self.original))
        return origins

    def in_original(self, start: int, end: int) -> Span:
        """Where characters `start` to `end` of the folded text stand in the original. Characters that were left out are
        covered where they stand inside or right behind; a character that folds to several is covered whole."""
        if self.text is self.original:
            return Span(start, end)
        return Span(self._origins[start], max(self._origins[end - 1] + 1, self._origins[end]))


def fold(text: str) -> Folded:
    """The text with look-alikes replaced. A text without any stays the same object."""
    if text.isascii():
        return Folded(text, text)
    if all(_FOLDS[ord(character)] == character for character in set(text)):
        return Folded(text, text)
    return Folded(text, text.translate(_FOLDS))
