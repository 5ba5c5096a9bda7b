"""Where something was found, and which of two findings in the same place counts."""

from collections.abc import Iterable
from typing import NamedTuple

from thumbwheel_redaction.kinds import RANK, Kind


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int


class Finding(NamedTuple):
    """Something of this kind stands at `start` to `end`. It doesn't hold the value, so it can be printed."""

    start: int
    end: int
    kind: Kind


def resolve(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that don't overlap, in the order of the text.

    A name, which a model guessed, gives way to whatever a rule found. Of two others that overlap the longer one counts,
    then the one whose kind comes first in `Kind`, then the earlier one: the outcome doesn't depend on the order in
    which they were found.
    """
    ranked = sorted(set(findings), key=lambda f: (f.kind is Kind.NAME, f.start - f.end, RANK[f.kind], f.start))
    if len(ranked) < 2:
        return ranked
    taken = bytearray(max(f.end for f in ranked))
    kept: list[Finding] = []
    for finding in ranked:
        if taken.find(1, finding.start, finding.end) < 0:
            taken[finding.start : finding.end] = b"\x01" * (finding.end - finding.start)
            kept.append(finding)
    return sorted(kept)
