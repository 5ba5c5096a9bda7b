"""The redactor and its conversations.

text ──fold──► searched form ──glance──► recognisers that may find something ──resolve──► findings ──► placeholders
               (look-alikes)   (cheap)    (each a rule of its own)            (no overlaps)     │
                    ▲                                                                           │
                    └──────────── again, until nothing more is found: the outcome is stable ◄───┘
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NoReturn

from thumbwheel_redaction.findings import Finding, Span, resolve
from thumbwheel_redaction.folding import Folded, fold
from thumbwheel_redaction.kinds import PLACEHOLDER, Kind, placeholder
from thumbwheel_redaction.names import NameFinder
from thumbwheel_redaction.recogniser import FEWEST_DIGITS, Glance, Recogniser
from thumbwheel_redaction.recognisers import RECOGNISERS
from thumbwheel_redaction.values import canonical

_PASSES = 8
"""How often a text is searched again after something in it was replaced. A placeholder can bring a key word nearer to
a number, or free the end of a value that another one overlapped; two passes settle nearly every text, and the bound
keeps the time linear whatever somebody thinks up."""

_MASK = "\x1f"  # counts as white space, and stands in no value


class Redactor:
    """Finds personal data and secrets. Immutable and safe to share between threads; make one and keep it.

    kinds: what is to be replaced; by default everything, names only where `names` can find them.
    names: a finder of people's names, such as `thumbwheel_redaction.presidio.PresidioNames`.
    extra: recognisers of your own, beside those that come with the package.
    """

    __slots__ = ("_anywhere", "_around_numbers", "_kinds", "_names")

    def __init__(
        self,
        kinds: Iterable[Kind] | None = None,
        *,
        names: NameFinder | None = None,
        extra: Sequence[Recogniser] = (),
    ) -> None:
        self._kinds = frozenset(Kind) if kinds is None else frozenset(Kind(kind) for kind in kinds)
        if kinds is not None and Kind.NAME in self._kinds and names is None:
            raise ValueError("kinds has Kind.NAME but nothing finds names: pass names=, see the extra `names`")
        self._names = names if Kind.NAME in self._kinds else None
        wanted = [recogniser for recogniser in (*RECOGNISERS, *extra) if recogniser.kind in self._kinds]
        self._anywhere = tuple(recogniser for recogniser in wanted if recogniser.digits < FEWEST_DIGITS)
        self._around_numbers = tuple(recogniser for recogniser in wanted if recogniser.digits >= FEWEST_DIGITS)

    def __repr__(self) -> str:
        return f"Redactor(kinds={sorted(self._kinds)}, names={self._names is not None})"

    def conversation(self) -> "Conversation":
        """A new conversation: its placeholders start at 1, and nothing links them to those of another one."""
        return Conversation(self)

    def find(self, text: str) -> list[Finding]:
        """What stands in the text, without overlaps, in its order. Placeholders are never part of a finding."""
        return self._findings(text, [])

    def find_with_names(self, text: str) -> list[Finding]:
        """As `find`, with people's names where there is a finder for them."""
        return self._findings(text, self._name_spans(text))

    def _findings(self, text: str, names: list[Span]) -> list[Finding]:
        folded = fold(text)
        searched = _without_placeholders(folded.text)
        found = [*self._recognised(folded, searched), *(Finding(*span, Kind.NAME) for span in names)]
        return resolve(found) if found else found

    def _recognised(self, folded: Folded, searched: str) -> Iterator[Finding]:
        glance = Glance(searched)
        for recogniser, start, end in self._tries(glance):
            for span in recogniser.find(searched, start, end):
                yield Finding(*folded.in_original(*span), recogniser.kind)

    def _tries(self, glance: Glance) -> Iterator[tuple[Recogniser, int, int]]:
        """Which recognisers are worth trying on this text, and where."""
        for recogniser in self._anywhere:
            if glance.permits(recogniser):
                yield recogniser, 0, len(glance.text)
        if not glance.regions:
            return
        for recogniser in self._around_numbers:
            if glance.permits(recogniser):
                for start, end, digits in glance.regions:
                    if digits >= recogniser.digits:
                        yield recogniser, start, end

    def _name_spans(self, text: str) -> list[Span]:
        if self._names is None or not text:
            return []
        fixed = bytearray(len(text))
        for match in PLACEHOLDER.finditer(text):
            fixed[match.start() : match.end()] = b"\x01" * len(match[0])
        return [Span(start, end) for start, end in self._names.find(text) if start < end and not any(fixed[start:end])]


class Conversation:
    """Replaces what is found in the texts of one conversation; the same value gets the same placeholder in all of them.

    For one thread. It holds digests under a random key of its own, never a value: what was replaced can't be read
    from it, nor found out by trying values without that key, which is never written anywhere.
    """

    __slots__ = ("_found", "_key", "_last", "_numbers", "_redactor", "_taken")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._key = secrets.token_bytes(32)
        self._numbers: dict[bytes, int] = {}
        self._last: Counter[Kind] = Counter()
        self._taken: set[tuple[str, int]] = set()
        self._found: Counter[Kind] = Counter()

    def __repr__(self) -> str:
        return f"<Conversation: {self._found.total()} replaced>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a conversation stays in its process: begin a new one where the text goes on")

    @property
    def found(self) -> Mapping[Kind, int]:
        """How many places were replaced so far, by kind; kinds without any are left out."""
        return dict(self._found)

    def redact(self, text: str) -> str:
        """The text with a placeholder for everything that is found in it; the same object where that is nothing.

        Placeholders that stand in it already stay, so to redact twice changes nothing (names: as far as the model
        that finds them doesn't see new ones in a text with placeholders).
        """
        findings = self._redactor.find_with_names(text)
        for _ in range(_PASSES):
            if not findings:
                break
            text = self._replaced(text, findings)
            findings = self._redactor.find(text)
        return text

    def _replaced(self, text: str, findings: list[Finding]) -> str:
        self._taken.update((kind, int(number)) for kind, number in PLACEHOLDER.findall(text))
        parts: list[str] = []
        done = 0
        for start, end, kind in findings:
            parts += (text[done:start], placeholder(kind, self._number(kind, text[start:end])))
            done = end
            self._found[kind] += 1
        parts.append(text[done:])
        return "".join(parts)

    def _number(self, kind: Kind, value: str) -> int:
        """The value's number: the one it has, or the next that no placeholder in these texts bears."""
        same = f"{kind}\0{canonical(kind, fold(value).text)}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(same, key=self._key, digest_size=16).digest()
        if digest not in self._numbers:
            number = self._last[kind] + 1
            while (kind.upper(), number) in self._taken:
                number += 1
            self._last[kind] = self._numbers[digest] = number
        return self._numbers[digest]


def _without_placeholders(text: str) -> str:
    """The text with white space in place of each placeholder, so that no value reaches into one or over it."""
    if "[" not in text:
        return text
    return PLACEHOLDER.sub(lambda match: _MASK * len(match[0]), text)
