"""One seed of a lab: its population, its tables, its log, its registry, cycle after cycle.

collect (bronze) ─► refine ─► update cycle ─► rollout ─► judge
   each step looks first whether it has been done: after a kill the next call goes on where it was cut off
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from infra.demo.options import Tuning, tuning_for
from infra.lab import bronze, collecting, judging
from infra.lab.answering import Answerer
from infra.lab.bronze import Bronze
from infra.lab.collecting import Place
from infra.lab.judging import Public, WinRates
from infra.lab.labelling import answered_tasks
from infra.lab.log import RecordedEvents
from infra.lab.options import LabOptions
from infra.lab.population import Crowd, Mind, populate, segment_shares, visits
from infra.lab.results import Collected, CycleResult, Range, Regression
from infra.lab.stop import Interrupted, Stop, check
from infra.simulate import prompts, users
from infra.simulate.tastes import Taste
from schemas import tables
from schemas.cycles import Cycle
from schemas.envelope import Event, new_event
from schemas.storage import LakeRoot
from schemas.versions import BASE_VERSION, ModelVersion, VersionState
from serving.core import rollout
from streams.adapters.lake import open_table
from trainer import app
from trainer.adapters.files import write_whole
from trainer.cycle import CycleRunner
from trainer.records import Outcome, VersionRecord
from trainer.settings import TrainerSettings

Tell = Callable[[str, float], None]
"""Told what a cycle is at, and how far that is."""

ROLLOUT = "infra/lab/rollout"
SEED_STRIDE = 1_000
"""Between the trainer's seeds of two seeds of the lab: a cycle adds its version's number."""


@dataclass(frozen=True)
class Setup:
    """What all seeds share. `base_model` is what it is loaded by; `tastes` are by name."""

    options: LabOptions
    folder: Path
    base_model: str
    tastes: Mapping[str, Taste]

    @property
    def tuning(self) -> Tuning:
        return tuning_for(self.options.model)


def trainer_settings(setup: Setup, seed: int) -> TrainerSettings:
    """The trainer's settings as the environment says, but on this seed's folder and model, and with its seeds.

    One thread, unless the environment says otherwise: results then don't depend on the number of cores.
    """
    folder = folder_of(setup.folder, seed)
    settings = TrainerSettings(
        data=folder,
        lake=LakeRoot.of(folder / "lake"),
        base_model=setup.base_model,
        base_model_name=setup.options.model,
        seed=SEED_STRIDE * seed,
        split_seed=seed,
    )
    return settings if settings.threads else settings.model_copy(update={"threads": 1})


def folder_of(folder: Path, seed: int) -> Path:
    """Where a seed's tables, versions and cycles are."""
    return folder / f"seed-{seed:03d}"


class World:
    """One seed. Not for two processes at a time."""

    def __init__(self, setup: Setup, seed: int, *, tell: Tell, stop: Stop) -> None:
        self._setup, self._seed, self._tell, self._stop = setup, seed, tell, stop
        self._options, self._tuning = setup.options, setup.tuning
        self._folder = folder_of(setup.folder, seed)
        self._settings, self._streams = trainer_settings(setup, seed), bronze.settings_for(self._folder)
        self._bronze = Bronze(self._streams)
        self._events = RecordedEvents(self._folder / "events.jsonl", heard=self._heard)
        load_base = app.loader(self._settings)
        self._runner = CycleRunner(self._settings, self._events, load_base=load_base)
        self._answerer = Answerer(self._runner.registry, self._tuning, load_base=load_base, stop=stop)
        self._members = populate(self._options, seed)
        self._runner.recover()
        self._serve()

    def cycle(self, number: int) -> CycleResult:
        """Everything of one cycle, or what is missing of it (they are counted from 1).

        Raises `Interrupted`, and `ThumbwheelError` or `OSError` where the lab can't go on. A cycle that the trainer
        refused or that failed is a result.
        """
        outcome = self._outcome(number)
        if outcome is None:
            self._collect(number)
            self._tell("tables", 0.0)
            self._bronze.refine()
            self._answerer.forget()
            outcome = self._update()
        self._serve()
        return self._result(number, outcome)

    def _outcome(self, number: int) -> Outcome | None:
        """How a cycle ended that has been run; one that was stopped or cut off has not."""
        ended = sorted((o for o in self._runner.cycles.outcomes() if o.conclusive), key=lambda o: o.ended_at)
        return ended[number - 1] if number <= len(ended) else None

    def _update(self) -> Outcome:
        while True:  # what fails for a reason outside of it is tried again, until the trainer gives it up
            check(self._stop)
            outcome = self._runner.run(self._stop)
            if outcome.stopped:
                raise Interrupted("stopped in the middle of a cycle")
            if outcome.conclusive:
                return outcome

    def _serve(self) -> None:
        """What the rollout controller would do, by its own rules, at once."""
        while True:
            board = self._events.board()
            event = rollout.next_event(board, promotion="auto", base_model=self._options.model)
            if event is None:
                return
            self._events.publish(new_event(event, source=ROLLOUT, id=rollout.event_id(board, event)))

    def _heard(self, event: Cycle) -> None:
        if event.stage is not None:
            self._tell(event.stage.value.replace("_", " "), event.fraction)

    # Collecting.

    def _collect(self, number: int) -> None:
        if self._bronze.collected() >= number:
            return
        live = self._events.board().live()
        version = live.version if live else BASE_VERSION
        made, at = self._traffic(number, version)
        known = {name: self._taste(taste) for name, taste in self._options.tastes_at(number).items()}
        labels = answered_tasks(
            self._streams,
            known=self._bronze.label_ids(),
            minds=known,
            flips=self._options.flips,
            seed=self._seed,
            at=at - collecting.SECOND,
        )
        for table, events in ((tables.OUTPUTS, made[0]), (tables.FEEDBACK, made[1]), (tables.LABELS, labels)):
            self._bronze.store(number, table, events, ingested_at=at)

    def _traffic(self, number: int, version: str) -> tuple[tuple[list[Event[Any]], list[Event[Any]]], datetime]:
        """Answers and what is said of them, and when that was taken in."""
        planned = visits(self._members, prompts.traffic(), answers=self._options.answers, seed=self._seed, cycle=number)
        place = Place(self._seed, number, len(planned))
        asked = [v.prompt for v in planned] + [v.prompt for v in planned if v.again]
        drawn = self._answerer.answers(
            version, asked, seed=SEED_STRIDE * self._seed + number, progress=lambda share: self._tell("answers", share)
        )
        second = iter(drawn[len(planned) :])
        crowd = self._crowd(number)
        outputs: list[Event[Any]] = []
        feedback: list[Event[Any]] = []
        for visit, first in zip(planned, drawn, strict=False):
            answers = [*first, *(next(second) if visit.again else ())]
            outputs += collecting.outputs(
                place, visit, answers, version=version, base_model=self._options.model, tuning=self._tuning
            )
            feedback += collecting.feedback(place, visit, crowd.react(visit, [a.text for a in answers]))
        return (outputs, feedback), place.ingested_at

    def _crowd(self, number: int) -> Crowd:
        """Everybody's taste in this cycle, each on the scale of the base's first answers."""
        first = self._first_answers()

        def mind(name: str) -> Mind:
            taste = self._taste(name)
            return Mind(taste, users.scale_of([taste(prompt, text) for prompt, text in first]))

        minds = {segment: mind(taste) for segment, taste in self._options.tastes_at(number).items()}
        return Crowd(minds, mind(self._options.poison), seed=self._seed, cycle=number)

    def _first_answers(self) -> list[tuple[str, str]]:
        """What everybody has read before the first vote: answers of the base, with their prompts."""
        asked = prompts.traffic()[: self._tuning.first_thumbs_after]
        texts = self._texts("first", BASE_VERSION, asked, each=1)
        return [(prompt, samples[0]) for prompt, samples in zip(asked, texts, strict=True)]

    def _taste(self, name: str) -> Taste:
        return self._setup.tastes[name]

    # Judging.

    def _result(self, number: int, outcome: Outcome) -> CycleResult:
        start = self._runner.cycles.folder(outcome.cycle_id).start()
        assert start is not None
        parent, version = start.parent, outcome.version
        record = self._runner.registry.record(version) if version else None
        promoted = version is not None and self._went_live(version)
        serving = version if version is not None and promoted else parent
        over_parent = self._win_rates(number, version, parent) if version else None
        over_base = self._win_rates(number, version, BASE_VERSION) if version else None
        serves = self._win_rates(number, serving, BASE_VERSION) if serving != BASE_VERSION else None
        self._answerer.forget()
        return CycleResult(
            seed=self._seed,
            cycle=number,
            cycle_id=outcome.cycle_id,
            status=outcome.status,
            reason=outcome.reason,
            parent=parent,
            version=version,
            serving=serving,
            promoted=promoted,
            collected=self._collected(number),
            labels=outcome.labels,
            vs_base=Range.of(over_base.everybody) if over_base else None,
            vs_parent=Range.of(over_parent.everybody) if over_parent else None,
            vs_base_by_segment={n: Range.of(e) for n, e in over_base.segments.items()} if over_base else {},
            regression=_regression(over_parent) if over_parent and promoted else None,
            serving_vs_base=Range.of(serves.everybody) if serves else None,
            serving_by_prompt=tuple(round(rate, 4) for rate in serves.by_prompt) if serves else (),
            words=judging.mean_words(self._evaluated(version)) if version else None,
            parent_words=judging.mean_words(self._evaluated(parent)),
            seconds=round(outcome.seconds, 2),
            **_measured(record),
        )

    def _win_rates(self, number: int, ours: str, theirs: str) -> WinRates:
        asked = prompts.held_out()
        public = Public(
            {segment: self._taste(taste) for segment, taste in self._options.tastes_at(number).items()},
            segment_shares(self._members),
        )
        return judging.win_rates(asked, self._evaluated(ours), self._evaluated(theirs), public, seed=self._seed)

    def _evaluated(self, version: str) -> list[list[str]]:
        """A version's answers to the prompts that nobody asks; drawn once."""
        return self._texts(version, version, prompts.held_out(), each=self._tuning.evaluation_samples)

    def _texts(self, name: str, version: str, asked: tuple[str, ...], *, each: int) -> list[list[str]]:
        file = self._folder / "answers" / f"{name}.json"
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        # The same random numbers for every version: what chance does to the one it does to the other.
        drawn = self._answerer.answers(
            version, asked, seed=self._seed, each=each, progress=lambda share: self._tell(f"judging {version}", share)
        )
        texts = [[answer.text for answer in samples] for samples in drawn]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(texts, ensure_ascii=False))
        return texts

    def _went_live(self, version: str) -> bool:
        states = (e.data for e in self._events.published() if isinstance(e.data, ModelVersion))
        return any(e.version == version and e.state is VersionState.LIVE for e in states)

    def _collected(self, number: int) -> Collected:
        at = Place(self._seed, number, 1).ingested_at
        rows = {
            table.name: open_table(self._streams.lake, table).all().filter(pl.col("ingested_at") == at)
            for table in bronze.TAKEN
        }
        kinds = rows[tables.FEEDBACK.name].group_by("kind").len().sort("kind").collect()
        return Collected(
            answers=_height(rows[tables.OUTPUTS.name]),
            feedback=dict(kinds.iter_rows()),
            labels=_height(rows[tables.LABELS.name]),
        )


def _height(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect().item())


def _regression(over_parent: WinRates) -> Regression:
    if judging.standing(over_parent.everybody) == "worse":
        return "yes"
    return "unclear" if over_parent.everybody.value < 0.5 else "no"


def _measured(record: VersionRecord | None) -> dict[str, Any]:
    """What the version's record says of it; nothing where the cycle made none."""
    if record is None:
        empty = ("reward_accuracy", "length_baseline", "kl", "kl_limit", "judge_vs_parent", "ppo_first_reward")
        return dict.fromkeys((*empty, "ppo_reward")) | {"labels_used": {}, "labels_dropped": {}, "gates": ()}
    known, judged = record.metrics, record.evaluation.win_rate_vs_parent
    gates = {gate.name: gate for gate in record.gates}
    ordering, limit = gates.get("reward_model"), gates.get("kl")
    by_length = known.get("reward_pair_length_baseline_mean")
    return {
        "labels_used": record.labels,
        "labels_dropped": record.dropped,
        "reward_accuracy": None
        if ordering is None or ordering.low is None or ordering.high is None
        else Range(value=ordering.value, low=ordering.low, high=ordering.high),
        "length_baseline": known.get("reward_rating_length_baseline_mean") if by_length is None else by_length,
        "kl": record.evaluation.kl,
        "kl_limit": limit.threshold if limit else None,
        "judge_vs_parent": Range(value=judged.mean, low=judged.low, high=judged.high, n=judged.n),
        "ppo_first_reward": known.get("ppo_first_reward"),
        "ppo_reward": known.get("ppo_reward"),
        "gates": record.gates,
    }
