"""What a version learned from, label by label and without a text: kept in the version's folder for good.

Table versions are vacuumed one day; this is what still tells, years later, which ratings and whose content a version
learned from, was checked on or was judged by.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.ids import content_id
from trainer.core.dataset import Dataset, Labels, PairRow, Turn
from trainer.core.safety_examples import SafetyExample

Set = Literal["train", "held_out", "judge", "judge_only"]


class Evidence(BaseModel):
    """One line of `evidence.jsonl`.

    `set` says for what it was used. A `prompt` is one that the policy was trained on (`train`) or evaluated on
    (`held_out`); labels are those of the reward model (`train`, `held_out`), of the judge, and those that nothing
    learns from (`judge_only`). A `flag` is an answer that the safety head learned from, flagged or not.
    With DPO and KTO the policy learned from the labels in `train` themselves. `id` is the
    prompt's, the pair's or the rating's. `rater` is the hash of a rater's id (see `rater_hash`): whoever knows the id
    finds what they taught, and the file names nobody.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: Set
    kind: Literal["pair", "rating", "prompt", "flag"]
    id: str
    prompt_id: str
    weight: float = 1.0
    source: str | None = None
    rater: str | None = None
    response_ids: tuple[str, ...] = ()


def rater_hash(rater_id: str) -> str:
    """How a rater is named in evidence."""
    return content_id("rater", rater_id)


def evidence(dataset: Dataset, safety: Iterable[SafetyExample] = ()) -> Iterator[Evidence]:
    """All that a data set holds, set by set, in the data set's own order; then what the safety head learned from."""
    parts: tuple[tuple[Set, Labels], ...] = (
        ("train", dataset.train),
        ("held_out", dataset.held_out),
        ("judge", dataset.judge),
        ("judge_only", dataset.judge_only),
    )
    for name, labels in parts:
        yield from _labels(name, labels)
    for turns in dataset.train_prompts:
        yield _prompt("train", turns)
    for turns in dataset.held_out_prompts:
        yield _prompt("held_out", turns)
    for example in safety:
        if example.response:
            yield _flag(example)


def _flag(example: SafetyExample) -> Evidence:
    return Evidence(
        set="train",
        kind="flag",
        id=example.response,
        prompt_id=_prompt("train", example.prompt).id,
        weight=example.weight,
        source="flag" if example.unsafe else None,
        response_ids=(example.response,),
    )


def _labels(name: Set, labels: Labels) -> Iterator[Evidence]:
    for row in (*labels.pairs, *labels.ratings):
        pair = isinstance(row, PairRow)
        yield Evidence(
            set=name,
            kind="pair" if pair else "rating",
            id=row.id,
            prompt_id=row.prompt_id,
            weight=row.weight,
            source=row.source,
            rater=rater_hash(row.rater) if row.rater else None,
            response_ids=row.responses if pair else (row.response,) if row.response else (),
        )


def _prompt(name: Set, turns: tuple[Turn, ...]) -> Evidence:
    prompt_id = content_id("prompt", *(text for turn in turns for text in turn))
    return Evidence(set=name, kind="prompt", id=prompt_id, prompt_id=prompt_id)
