"""Labelled sentences from templates, values and decoys. The same seed gives the same sentences."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from thumbwheel_redaction.evaluation import values
from thumbwheel_redaction.evaluation.decoys import decoy
from thumbwheel_redaction.evaluation.identities import Identity, identity
from thumbwheel_redaction.findings import Finding
from thumbwheel_redaction.kinds import Kind

_HOLE = re.compile(r"\{([a-z_0-9]+)\}")
_DISGUISED = 0.05  # of the values: written with signs that only look like ASCII

_VALUES = {
    "email": (Kind.EMAIL, values.email),
    "phone": (Kind.PHONE, values.phone),
    "card": (Kind.CARD, values.card),
    "iban": (Kind.IBAN, values.iban),
    "ip": (Kind.IP, values.ip),
    "secret": (Kind.SECRET, values.secret),
    "password": (Kind.SECRET, values.password),
    "opaque_key": (Kind.SECRET, values.opaque_key),
    "name": (Kind.NAME, values.name),
}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text and what stands in it."""

    text: str
    labels: tuple[Finding, ...]


def sentences(templates: Sequence[str], count: int, seed: int) -> Iterator[Sentence]:
    """So many sentences, each template as often as the others."""
    random = Random(seed)
    for number in range(count):
        yield _filled(templates[number % len(templates)], random)


def _filled(template: str, random: Random) -> Sentence:
    text, labels, done = "", list[Finding](), 0
    person: Identity = identity(random)
    for hole in _HOLE.finditer(template):
        text += _unescaped(template[done : hole.start()])
        kind, value = _value(hole[1], person, random)
        if kind is not None:
            value = _disguised(value, random)
            labels.append(Finding(len(text), len(text) + len(value), kind))
        text += value
        done = hole.end()
    return Sentence(text + _unescaped(template[done:]), tuple(labels))


def _unescaped(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}")


def _value(hole: str, person: Identity, random: Random) -> tuple[Kind | None, str]:
    match hole:
        case "decoy":
            return None, decoy(random)
        case "identity_name":
            return None, person.name
        case "identity":
            return Kind.NATIONAL_ID, person.number
        case "identity_alone":
            while not person.bare:
                person = identity(random)
            return Kind.NATIONAL_ID, person.number
        case "ip_v4":
            return Kind.IP, f"81.20.{random.randint(0, 255)}.{random.randint(1, 254)}"
        case _:
            kind, make = _VALUES[hole]
            return kind, make(random)


def _disguised(value: str, random: Random) -> str:
    """Now and then: full-width digits, a non-breaking space or hyphen, a zero-width space inside."""
    if random.random() >= _DISGUISED:
        return value
    way = random.randrange(3)
    if way == 0:
        return value.translate({ord(digit): ord(digit) - ord("0") + ord("０") for digit in "0123456789"})
    if way == 1:
        return value.replace(" ", "\u00a0").replace("-", "\u2011")
    middle = len(value) // 2
    return f"{value[:middle]}\u200b{value[middle:]}"
