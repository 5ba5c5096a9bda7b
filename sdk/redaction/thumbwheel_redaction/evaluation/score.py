"""Precision and recall of each kind, with Wilson's interval."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from thumbwheel_redaction.evaluation.generate import Sentence
from thumbwheel_redaction.findings import Finding
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.redactor import Redactor

_Z = 1.959964  # 95 %, both sides


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """Between 0 and 1; 0 of 0 is 0."""
        return self.hits / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927): the shares that a
        test at 5 % wouldn't reject. 0 to 1 where nothing was counted."""
        if not self.of:
            return 0.0, 1.0
        n, p, z2 = self.of, self.value, _Z * _Z
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        # At the ends the bound is exactly 0 or 1; rounding would miss it by 1e-17.
        return (0.0 if not self.hits else centre - half), (1.0 if self.hits == n else centre + half)


@dataclass(frozen=True, slots=True)
class Score:
    """precision: of the findings, those that touch a label of their kind. recall: of the labels, those whose every
    character lies in findings of their kind."""

    precision: Share
    recall: Share


def scores(sentences: Iterable[Sentence], redactor: Redactor, kinds: Iterable[Kind]) -> dict[Kind, Score]:
    """The score of each kind."""
    found, right, labels, covered = Counter[Kind](), Counter[Kind](), Counter[Kind](), Counter[Kind]()
    for sentence in sentences:
        findings = redactor.find_with_names(sentence.text)
        for finding in findings:
            found[finding.kind] += 1
            right[finding.kind] += any(_touches(finding, label) for label in sentence.labels)
        for label in sentence.labels:
            labels[label.kind] += 1
            covered[label.kind] += _is_covered(label, findings)
    return {kind: Score(Share(right[kind], found[kind]), Share(covered[kind], labels[kind])) for kind in kinds}


def _touches(finding: Finding, label: Finding) -> bool:
    return finding.kind is label.kind and finding.start < label.end and label.start < finding.end


def _is_covered(label: Finding, findings: Iterable[Finding]) -> bool:
    place = label.start
    for finding in findings:  # in the order of the text
        if finding.kind is label.kind and finding.start <= place < finding.end:
            place = finding.end
    return place >= label.end
