"""Hostile text costs no more than its length: by the form of the patterns, and by counting what the code does."""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator

import pytest

import thumbwheel_redaction
from thumbwheel_redaction import Redactor
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.recognisers import RECOGNISERS

parser, compiler = re._parser, re._compiler  # type: ignore[attr-defined]
MAX, REPEATS = parser.MAXREPEAT, (parser.MAX_REPEAT, parser.MIN_REPEAT, parser.POSSESSIVE_REPEAT)
ALPHABET = [chr(code) for code in range(128)] + list("é漢٣")


def patterns() -> dict[str, re.Pattern[str]]:
    """Every pattern at the top of a module of the package, by where it stands; not those of the evaluation."""
    found: dict[str, re.Pattern[str]] = {}
    for module in pkgutil.walk_packages(thumbwheel_redaction.__path__, "thumbwheel_redaction."):
        if ".evaluation" in module.name or module.name.endswith(".presidio"):
            continue
        loaded = importlib.import_module(module.name)
        found |= {
            f"{module.name}.{name}": value for name, value in vars(loaded).items() if isinstance(value, re.Pattern)
        }
    return found


def repeats(tree, inside=()) -> Iterator[tuple[object, tuple[int, int, object], tuple]]:
    """(operation, (least, most, body), the repeats around it) of each repeat in a parsed pattern."""
    for operation, argument in tree:
        if operation in REPEATS:
            yield operation, argument, inside
            yield from repeats(argument[2], (*inside, argument))
        elif operation is parser.BRANCH:
            for branch in argument[1]:
                yield from repeats(branch, inside)
        elif operation in (parser.SUBPATTERN, parser.ATOMIC_GROUP):
            yield from repeats(argument if operation is parser.ATOMIC_GROUP else argument[-1], inside)
        elif operation in (parser.ASSERT, parser.ASSERT_NOT):
            yield from repeats(argument[1], inside)


def characters(tree, item) -> set[str] | None:
    """Of the alphabet, what an item that takes exactly one character accepts; None for other items. A group of
    alternatives counts by the first characters of them all."""
    operation, argument = item
    if operation is parser.SUBPATTERN:
        body = argument[-1]
        return characters(body, body[0]) if len(body) else None
    if operation in REPEATS and argument[0] == argument[1] >= 1:
        return characters(argument[2], argument[2][0])
    if operation is parser.BRANCH:
        sets = [characters(branch, branch[0]) if len(branch) else None for branch in argument[1]]
        return None if any(one is None for one in sets) else set().union(*sets)
    if operation not in (parser.LITERAL, parser.NOT_LITERAL, parser.IN, parser.ANY):
        return None
    one = compiler.compile(parser.SubPattern(tree.state, [item]))
    return {character for character in ALPHABET if one.fullmatch(character)}


@pytest.mark.parametrize("name", sorted(patterns()))
def test_an_attempt_at_one_place_is_bounded(name: str):
    """Repeats have a bound, or the pattern is one class of characters repeated possessively and nothing else: it is
    matched at a place and can't try a second way."""
    tree = parser.parse(patterns()[name].pattern, patterns()[name].flags)
    if len(tree) == 1 and tree[0][0] is parser.POSSESSIVE_REPEAT and len(tree[0][1][2]) == 1:
        assert tree[0][1][2][0][0] in (parser.IN, parser.NOT_LITERAL)
        return
    for _, (_, most, _), _ in repeats(tree):
        assert most is not MAX, f"{name} repeats without a bound"
        assert most <= 512


@pytest.mark.parametrize("name", sorted(patterns()))
def test_a_repeat_in_a_repeat_has_one_way_to_match(name: str):
    """In the body of a repeat, beside another repeat there stands a character that the inner one doesn't take: so where
    one round ends and the next begins is never in doubt."""
    tree = parser.parse(patterns()[name].pattern, patterns()[name].flags)
    for _, (least, most, _), around in repeats(tree):
        if least == most or not any(outer[1] > 1 for outer in around):
            continue
        outer = next(outer for outer in reversed(around) if outer[1] > 1)
        body = outer[2][0][1][-1] if len(outer[2]) == 1 and outer[2][0][0] is parser.SUBPATTERN else outer[2]
        taken: set[str] = set()
        for _, (low, high, inner), _ in repeats(body):
            if low != high:
                taken |= characters(inner, inner[0]) or set(ALPHABET)
        fixed = [accepted for item in body if (accepted := characters(body, item)) is not None]
        inner_alone = [characters(i[2], i[2][0]) or set(ALPHABET) for _, i, _ in repeats(body) if i[0] != i[1]]
        assert fixed, f"{name}: nothing separates the rounds"
        assert all(any(not accepted & one for accepted in fixed) for one in inner_alone), name


def test_the_check_of_the_patterns_sees_a_bad_one():
    assert any(most is MAX for _, (_, most, _), _ in repeats(parser.parse(r"(a+)+b", 0)))
    with pytest.raises(AssertionError):
        tree = parser.parse(r"(?:[a-z]{1,9}){1,9}", 0)
        ((_, outer, _), _) = list(repeats(tree))
        assert [item for item in outer[2] if characters(outer[2], item) is not None], "nothing separates the rounds"


HOSTILE = {
    "digits": "1",
    "digits with spaces": "4 ",
    "digits with dots": "1.",
    "fours with hyphens": "4111-",
    "at signs": "@",
    "addresses without end": "a@a.",
    "labels": "a.",
    "spelled": "a (at) ",
    "dots in words": "a dot ",
    "country codes": "DE89",
    "pluses": "+49",
    "trunk": "(0",
    "telephone words": "tel 1234567 ",
    "key words": "key ",
    "assignments": "password=",
    "quotes": 'token:"',
    "bearers": "bearer ",
    "tokens": "eyJ",
    "marks": "sk-",
    "private keys": "-----BEGIN PRIVATE KEY-----",
    "urls": "://a:",
    "colons": "2001:",
    "placeholders": "[EMAIL_1]",
    "brackets": "[EMAIL_",
    "passports": "passport no ",
    "hexadecimal": "2af",
    "underscores": "_-",
    "wide digits": "４",
    "zero width": "1\u200b",
}


def steps(work) -> int:
    """How many functions are called, those written in C among them."""
    count = 0

    def counted(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def assert_linear(of_one: int, of_two: int, length: int, what: str) -> None:
    assert of_two <= 2.2 * of_one + 200, f"{what}: {of_one} steps for a text, {of_two} for one twice as long"
    assert of_one <= 60 * length, f"{what}: {of_one / length:.0f} steps a character"


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_twice_the_text_is_at_most_twice_the_work(unit: str):
    redactor = Redactor()
    one, two = (unit * (length // len(unit)) for length in (10_000, 20_000))
    of_one, of_two = (steps(lambda text=text: redactor.conversation().redact(text)) for text in (one, two))
    assert_linear(of_one, of_two, 10_000, unit)


@pytest.mark.parametrize("recogniser", RECOGNISERS, ids=lambda recogniser: recogniser.name)
def test_each_recogniser_is_linear_without_the_look_beforehand(recogniser: Recogniser):
    share = 100_000 // len(HOSTILE)
    one, two = ("\n".join(unit * (times * share // len(unit)) for unit in HOSTILE.values()) for times in (1, 2))
    of_one, of_two = (steps(lambda text=text: list(recogniser.find(text, 0, len(text)))) for text in (one, two))
    assert_linear(of_one, of_two, 100_000, recogniser.name)
