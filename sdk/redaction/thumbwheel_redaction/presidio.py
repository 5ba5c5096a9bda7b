"""People's names by Microsoft Presidio and a spaCy model. Needs the extra `names`; nothing else imports this module.

What to expect: a small model misses names and takes other words for some (see docs/redaction.md); it costs about 10 to
20 ms of CPU time a text, thousands of times what all the other recognisers cost together.
"""

# pyright: reportMissingImports=false
# The extra isn't part of the development environment.

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from thumbwheel_redaction.findings import Span

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

PERSON = "PERSON"


class PresidioNames:
    """A `NameFinder`. Load it once: that takes seconds and some hundred megabytes; it may be shared between threads.

    model: the name of an installed spaCy model, such as `en_core_web_sm`. Presidio downloads what it doesn't find, so a
        name that isn't installed is refused here.
    language: the two letters of the model's language.
    entities: Presidio's names of what counts as a name.
    least_score: 0 to 1; spaCy's findings have 0.85 in Presidio.
    """

    def __init__(
        self, model: str, *, language: str = "en", entities: Sequence[str] = (PERSON,), least_score: float = 0.5
    ) -> None:
        self._analyzer = _analyzer(model, language)
        self._language = language
        self._entities = list(entities)
        self._least_score = least_score

    def find(self, text: str) -> Iterable[Span]:
        """The spans of names."""
        results = self._analyzer.analyze(
            text=text, language=self._language, entities=self._entities, score_threshold=self._least_score
        )
        return [Span(result.start, result.end) for result in results]


def _analyzer(model: str, language: str) -> "AnalyzerEngine":
    try:
        import spacy.util
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError as missing:
        raise ImportError("finding names needs Presidio: pip install 'thumbwheel-redaction[names]'") from missing
    if not spacy.util.is_package(model):
        raise ValueError(f"the spaCy model {model!r} is not installed: install its package first, it isn't downloaded")
    configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
