"""Look-alikes and invisible characters don't hide a value, and places point into the text as it was written."""

import pytest

from thumbwheel_redaction import Redactor
from thumbwheel_redaction.folding import fold, folded_character


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("card ４１１１ １１１１ １１１１ １１１１!", "card [CARD_1]!"),  # full-width digits
        ("card 4111\u00a01111\u00a01111\u00a01111!", "card [CARD_1]!"),  # non-breaking spaces
        ("415\u2011555\u20110132", "[PHONE_1]"),  # non-breaking hyphens
        ("+49\u202f30\u202f12345678", "[PHONE_1]"),  # narrow non-breaking spaces
        ("a\u200bnn@exam\u200dple.org", "[EMAIL_1]"),  # zero-width characters
        ("ann@exam\u00adple.org", "[EMAIL_1]"),  # a soft hyphen
        ("ａｎｎ＠ｅｘａｍｐｌｅ．ｏｒｇ です", "[EMAIL_1] です"),
        ("ann@example。org", "[EMAIL_1]"),  # an ideographic full stop
        ("\u2066ann@example.org\u2069", "\u2066[EMAIL_1]"),  # direction marks
        ("4\ufe0f\u20e31\ufe0f\u20e31\ufe0f\u20e31\ufe0f\u20e3 1111 1111 1111", "[CARD_1]"),  # keycaps
        ("٤١١١ ١١١١ ١١١١ ١١١١", "[CARD_1]"),  # Arabic-Indic digits
        ("𝟒𝟏𝟏𝟏 1111 1111 1111", "[CARD_1]"),  # mathematical bold digits
        ("𝐀KIAIOSFODNN7EXAMPLE", "[SECRET_1]"),
        ("password: “hunter2”", "password: “[SECRET_1]”"),  # typographic quotes
        ("𝕊𝕊ℕ 123 45 6789", "𝕊𝕊ℕ [NATIONAL_ID_1]"),
        ("SSN 123−45−6789", "SSN [NATIONAL_ID_1]"),  # minus signs
    ],
)
def test_a_disguised_value_is_found(text: str, expected: str):
    assert Redactor().conversation().redact(text) == expected


def test_places_point_into_the_original():
    text = "é\u200b ４2 x"
    folded = fold(text)
    assert folded.text == "é 42 x"
    start = folded.text.index("42")
    place = folded.in_original(start, start + 2)
    assert text[place.start : place.end] == "４2"


def test_a_character_that_folds_to_several_is_covered_whole():
    folded = fold("a℡b")  # one sign for TEL
    assert folded.text == "aTELb"
    assert folded.in_original(2, 3) == (1, 2)  # the E


def test_invisible_characters_behind_a_value_go_with_it():
    folded = fold("1\u200b\u200b2")
    assert folded.text == "12"
    assert folded.in_original(0, 1) == (0, 3)
    assert folded.in_original(1, 2) == (3, 4)


def test_a_text_without_look_alikes_is_itself():
    for text in ("plain", "déjà vu, Straße, 漢字", ""):
        assert fold(text).text is text


@pytest.mark.parametrize("character", list("aZ09 é漢ßñ\n\t"))
def test_ordinary_characters_stand_for_themselves(character: str):
    assert folded_character(character) == character
