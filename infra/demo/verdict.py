"""What a run showed, in one honest sentence, from the interval and not from the hope. Pure."""

from dataclasses import dataclass
from typing import Literal

from infra.demo.statistics import Estimate

Kind = Literal["helped", "did_not_help", "inconclusive", "harmed", "nothing_promoted"]
HEADLINES: dict[Kind, str] = {
    "helped": "The update helped.",
    "did_not_help": "The update did not help.",
    "inconclusive": "Whether the update helped is not clear.",
    "harmed": "The update did harm.",
    "nothing_promoted": "No update was promoted.",
}


@dataclass(frozen=True)
class Verdict:
    """`headline` in a few words, `sentence` with the numbers."""

    kind: Kind
    headline: str
    sentence: str


def judge_run(serving: str | None, win_rate: Estimate | None, *, cycles: int) -> Verdict:
    """The verdict on the version that serves at the end; `win_rate` is against the base, by the true taste."""
    if serving is None or serving == "base" or win_rate is None:
        ran = "One update cycle" if cycles == 1 else f"{cycles} update cycles"
        return _verdict(
            "nothing_promoted", f"{ran} ran and none gave a version that passed its gates: the base model still serves."
        )
    shown = f"{win_rate.value:.0%} of comparisons (95% interval {win_rate.low:.0%} to {win_rate.high:.0%})"
    on = f"on {win_rate.n} prompts that nobody had asked before"
    if win_rate.low > 0.5:
        return _verdict("helped", f"By the users' true taste {serving} beats the base model in {shown}, {on}.")
    if win_rate.high < 0.5:
        return _verdict("harmed", f"By the users' true taste {serving} beats the base model in only {shown}, {on}.")
    if win_rate.value > 0.5:
        return _verdict(
            "inconclusive",
            f"By the users' true taste {serving} beats the base model in {shown}, {on}; the interval includes 50%.",
        )
    return _verdict(
        "did_not_help", f"By the users' true taste {serving} is no better than the base model: it wins {shown}, {on}."
    )


def _verdict(kind: Kind, sentence: str) -> Verdict:
    return Verdict(kind, HEADLINES[kind], sentence)
