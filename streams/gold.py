"""The gold file: questions whose answer is known, one JSON object a line.

    {"prompt": "…", "left": "…", "right": "…", "chosen": "…"}        a question that is put to labelers
    {"task_id": "task-…", "chosen": "…"}                             the same, of a task that was queued before

`chosen` is the better text of the two, or null for neither. `prompt` is a text or a list of {role, content}; `left` and
`right` are texts, or {completion, response_id, version} as they are in gold/label_queue: then not even the event of its
task can be told from others, and it is asked no more once its answer is erased or must not be shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from schemas.errors import SettingsError
from schemas.labels import Candidate
from schemas.messages import Identifier, Prompt, Text
from streams.core.gold import GoldQuestion


def _turns(said: Any) -> Any:
    return [{"role": "user", "content": said}] if isinstance(said, str) else said


def _candidate(said: Any) -> Any:
    return {"completion": said} if isinstance(said, str) else said


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    chosen: Text | None
    task_id: Identifier | None = None
    prompt: Annotated[Prompt | None, BeforeValidator(_turns)] = None
    left: Annotated[Candidate | None, BeforeValidator(_candidate)] = None
    right: Annotated[Candidate | None, BeforeValidator(_candidate)] = None

    @model_validator(mode="after")
    def _names_a_question(self) -> Self:
        question = self.question()
        if question is None and self.task_id is None:
            raise ValueError("it names no question: give prompt, left and right, or a task_id")
        if question is not None and not _answers(question):
            raise ValueError("left and right are the same text, or chosen is neither of them")
        return self

    def question(self) -> GoldQuestion | None:
        if self.prompt is None or self.left is None or self.right is None:
            return None
        return GoldQuestion(self.prompt, (self.left, self.right), self.chosen)


@dataclass(frozen=True, slots=True)
class Gold:
    """What the file says: the better text by task id, the questions, and the ids of those that it doesn't spell out."""

    answers: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    questions: tuple[GoldQuestion, ...] = ()
    named: tuple[str, ...] = ()

    def of_task(self, row: Mapping[str, Any]) -> GoldQuestion | None:
        """The question of a task of gold.label_queue that the file names; None where the answer doesn't fit."""
        line = _Line(chosen=None, prompt=row["prompt"], left=row["left"], right=row["right"]).question()
        assert line is not None
        question = GoldQuestion(line.prompt, line.sides, self.answers[row["task_id"]])
        return question if question.id == row["task_id"] and _answers(question) else None


def read_gold(file: Path | None) -> Gold:
    """The gold file (see `RaterSettings.gold_answers`); raises `SettingsError` with the line to mend."""
    if file is None:
        return Gold()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the gold answers can't be read: {error}; mend the file or unset the setting") from error
    read = [_read(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    answers: dict[str, str | None] = {}
    questions = dict[str, GoldQuestion]()
    for line in read:
        question = line.question()
        if question is not None:
            questions[question.id] = question
            answers[question.id] = line.chosen
        if line.task_id is not None:
            answers[line.task_id] = line.chosen
    return Gold(answers, tuple(questions.values()), tuple(sorted(answers.keys() - questions.keys())))


def _read(text: str, where: str) -> _Line:
    try:
        return _Line.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{where}: {f'{place}: ' if place else ''}{first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{where} is no JSON: {error}") from error


def _answers(question: GoldQuestion) -> bool:
    """Whether its answer is one of two different texts, or neither."""
    return len(set(question.texts)) == 2 and (question.chosen is None or question.chosen in question.texts)
