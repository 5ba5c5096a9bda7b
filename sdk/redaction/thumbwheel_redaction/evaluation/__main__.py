"""How well the recognisers do.

python -m thumbwheel_redaction.evaluation                       precision and recall on made-up sentences, as a table
python -m thumbwheel_redaction.evaluation --misses              and what went wrong on the templates that may be seen
python -m thumbwheel_redaction.evaluation --texts FILE ...      what is found in a thousand texts of your own
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from thumbwheel_redaction.evaluation.generate import Sentence, sentences
from thumbwheel_redaction.evaluation.score import Score, Share, scores
from thumbwheel_redaction.evaluation.templates import HELD_OUT, SEEN
from thumbwheel_redaction.evaluation.texts import census, strings
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.redactor import Redactor

SENTENCES, SEED = 4_800, 20261121


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m thumbwheel_redaction.evaluation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="how many of each half (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="the same seed makes the same sentences")
    parser.add_argument("--names", metavar="MODEL", help="find names too, with this spaCy model (extra `names`)")
    parser.add_argument("--misses", action="store_true", help="print what went wrong on the templates that may be seen")
    parser.add_argument("--texts", nargs="+", type=Path, metavar="FILE", help="count what is found in these files")
    parser.add_argument(
        "--samples", action="store_true", help="with --texts: print every finding with what surrounds it"
    )
    chosen = parser.parse_args(arguments)
    redactor = _redactor(chosen.names)
    if chosen.texts:
        lines = _census(chosen.texts, redactor, samples=chosen.samples)
    elif chosen.misses:
        lines = _misses(sentences(SEEN, chosen.sentences, chosen.seed), redactor)
    else:
        kinds = [kind for kind in Kind if kind is not Kind.NAME or chosen.names]
        lines = table(chosen.sentences, chosen.seed, redactor, kinds)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def table(count: int, seed: int, redactor: Redactor, kinds: Sequence[Kind]) -> list[str]:
    """The table of the documentation, in Markdown: each kind on the templates that were seen and those held out."""
    seen = scores(sentences(SEEN, count, seed), redactor, kinds)
    held_out = scores(sentences(HELD_OUT, count, seed + 1), redactor, kinds)
    head = [
        "| kind | precision, held out | recall, held out | precision, seen | recall, seen |",
        "|---|---|---|---|---|",
    ]
    return head + [_row(kind, held_out[kind], seen[kind]) for kind in kinds]


def _row(kind: Kind, *pairs: Score) -> str:
    cells = [_cell(share) for score in pairs for share in (score.precision, score.recall)]
    return f"| {kind} | {' | '.join(cells)} |"


def _cell(share: Share) -> str:
    low, high = share.interval
    return f"{share.value:.3f} ({low:.3f}-{high:.3f}), {share.hits}/{share.of}"


def _redactor(model: str | None) -> Redactor:
    if model is None:
        return Redactor()
    from thumbwheel_redaction.presidio import PresidioNames

    return Redactor(names=PresidioNames(model))


def _misses(made: Iterator[Sentence], redactor: Redactor) -> Iterator[str]:
    for sentence in made:
        findings = redactor.find_with_names(sentence.text)
        labels = [label for label in sentence.labels if label.kind is not Kind.NAME]
        if set(findings) != set(labels):
            yield f"{sentence.text!r}"
            yield from (f"    missed {x.kind}: {sentence.text[x.start : x.end]!r}" for x in labels if x not in findings)
            yield from (f"    found  {x.kind}: {sentence.text[x.start : x.end]!r}" for x in findings if x not in labels)


def _census(files: Sequence[Path], redactor: Redactor, *, samples: bool) -> Iterator[str]:
    counted = census(strings(files), redactor)
    yield f"{counted.texts} texts, {counted.characters} characters"
    yield from (f"{kind:12} {counted.found[kind]:6} {counted.per_thousand(kind):8.2f} per 1,000 texts" for kind in Kind)
    if samples:
        yield from (f"{kind:12} {sample}" for kind, sample in counted.samples)


if __name__ == "__main__":
    sys.exit(main())
