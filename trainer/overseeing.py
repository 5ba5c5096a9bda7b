"""Who watches a cycle's training, made of what the cycle has at hand."""

from collections.abc import Iterable, Sequence

from trainer.adapters.policies import LanguageModel
from trainer.core.dataset import PairRow
from trainer.core.judge import Answers
from trainer.core.overseers import Demonstration, Overseers, Scores, given_elsewhere
from trainer.core.parents import Parent
from trainer.core.reward import RewardEnsemble
from trainer.features import encode_answer, encode_prompt
from trainer.settings import Limits


def overseers(
    judge: RewardEnsemble,
    *,
    safety: Scores | None,
    parent: Parent | None,
    parent_answers: Answers,
    prompts: Sequence[Sequence[int]],
    demonstrations: tuple[Demonstration, ...],
) -> Overseers:
    """The judge, the safety head if there is one, and what is served now: its answers to the held-out `prompts`."""
    return Overseers(
        judge=lambda features_NF: judge.score(features_NF).mean(1),
        safety=safety,
        safety_before=0.0 if safety is None else float(safety(parent_answers.features_NF).mean()),
        parent=parent,
        parent_length=parent_answers.tokens,
        parent_sameness=float(given_elsewhere(prompts, parent_answers.ids[: len(prompts)]).mean()),
        demonstrations=demonstrations,
    )


def written(lm: LanguageModel, pairs: Iterable[PairRow], limits: Limits) -> tuple[Demonstration, ...]:
    """What users wrote themselves: the corrections among the pairs."""
    return tuple(
        Demonstration(
            tuple(encode_prompt(lm, row.prompt, limits)),
            tuple(encode_answer(lm, row.chosen, limits)),
        )
        for row in pairs
        if row.source == "correction"
    )
