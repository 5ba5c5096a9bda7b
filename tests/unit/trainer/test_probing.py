"""A version and its parent put to the probes, on a random model of letters."""

import math
from dataclasses import replace

import pytest
import torch

from tests.unit.trainer.core.language import policy
from trainer.adapters.policies import Policy
from trainer.core.gates import GateThresholds
from trainer.core.gates.verdicts import probes as judged
from trainer.core.judge import Answers, sample_answers
from trainer.core.parents import Parent
from trainer.core.probes.suite import KINDS, Probe, suite
from trainer.core.rollout import look
from trainer.probing import AGREE, DISAGREE, HeldOut, Probed, agreement, answered, gave_in, noted, probe, worded
from trainer.probing import _Side as Side  # pyright: ignore[reportPrivateUsage]
from trainer.records import Evaluation, Interval
from trainer.settings import CycleConfig, Probing, TrainerSettings

SUITE = suite([Probe(f"{kind}-{n}", kind, "x", (("user", "abc" + "de" * n),)) for kind in KINDS for n in range(6)])
PROMPTS = ((5, 6), (7, 8, 9), (10,), (11, 5))
WON = Interval(mean=0.5, low=0.4, high=0.6, n=4)


def config(tokens: int | None = None) -> CycleConfig:
    made = TrainerSettings(_env_file=None).cycle_config(  # type: ignore[call-arg]
        n_parameters=1000, dtype="float32", device="cpu", threads=1, seed=3
    )
    sampling = replace(made.ppo.sampling, max_new_tokens=5)
    return made.model_copy(update={"ppo": replace(made.ppo, sampling=sampling), "probes": Probing(tokens=tokens)})


def answers(*texts: str) -> Answers:
    return Answers(texts, torch.zeros(len(texts), 1), 0.0, 1.0, 3.0)


def put(made: Policy, parent: Parent, *, first: bool = True) -> Probed:
    new = sample_answers(made, PROMPTS, config().ppo.sampling, seed=1)
    with parent.active():
        old = sample_answers(made, PROMPTS, config().ppo.sampling, seed=1)
    held = HeldOut(tuple("abcd"), PROMPTS, new, old, None if first else old)
    return probe(made, parent, SUITE, held, config(), progress=lambda _: None, cost=lambda found_NF: found_NF[:, 0])


def test_an_untrained_version_has_the_very_figures_of_its_parent() -> None:
    made = policy(trained=True)
    found = put(made, Parent(made), first=False)
    assert {p.name for p in found.paired} == {
        "repetition", "sameness", "flattery", "questions", "format", "unsafe", "over_refusal", "red_team",
        "safety_cost", "sycophancy",
    }  # fmt: skip
    assert all(p.new == p.parent for p in found.paired)
    assert found.kl_parent_N.abs().max() < 1e-4 and found.asked == 24
    assert all(g.passed for g in judged(found.paired, GateThresholds(), seed=0))


def test_a_trained_version_differs_from_its_parent_and_is_itself_again_afterwards() -> None:
    made = policy()
    parent = Parent(made)
    with torch.no_grad():
        for p in made.adapter_parameters():
            p.normal_(0, 0.3)
    weights = [p.detach().clone() for p in made.adapter_parameters()]
    found = {p.name: p for p in put(made, parent).paired}
    assert found["sycophancy"].new != found["sycophancy"].parent
    assert found["safety_cost"].new != found["safety_cost"].parent and len(found["safety_cost"].new) == 12
    assert all(torch.equal(p, was) for p, was in zip(made.adapter_parameters(), weights, strict=True))


def test_two_probings_of_the_same_versions_say_the_same() -> None:
    made = policy(trained=True)
    first, second = put(made, Parent(made)), put(made, Parent(made))
    assert (first.paired, first.tokens) == (second.paired, second.tokens)


def test_what_the_probes_showed_is_in_the_evaluation() -> None:
    made = policy(trained=True)
    plain = Evaluation(
        prompts=4, judged_by="raters", win_rate_vs_parent=WON, win_rate_vs_base=WON, kl=0.0, length=3.0,
        parent_length=3.0, base_length=3.0, finished=1.0, samples=(),
    )  # fmt: skip
    found = noted(plain, put(made, Parent(made)))
    assert found.suite_sha256 == SUITE.sha256 and found.probes_asked == 24 and found.token_seconds is not None
    assert {f.name: f.n for f in found.probes}["unsafe"] == 6
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_the_answers_to_each_kind_are_measured_by_what_it_is_for() -> None:
    asked = [
        Probe("a", "harmful", "x", (("user", "?"),)),
        Probe("b", "lookalike", "x", (("user", "?"),)),
        Probe("c", "red_team", "x", (("user", "?"),), canary="QUOKKA"),
        Probe("d", "red_team", "x", (("user", "?"),)),
    ]
    new = Side(["Mix both.", "I can't help with that.", "Rome.", "Sure."], [])
    old = Side(["I can't help with that.", "Open the lid.", "QUOKKA", "Please call a doctor."], [])
    found = {p.name: (p.new, p.parent) for p in answered(asked, new, old)}
    assert found == {
        "unsafe": ((1.0,), (0.0,)),
        "over_refusal": ((1.0,), (0.0,)),
        "red_team": ((0.0, 1.0), (1.0, 0.0)),
    }
    assert gave_in(asked[2], "quokka!") and not gave_in(asked[2], "I can't help with that.")


def test_the_wording_of_held_out_answers_is_compared_with_parent_and_base() -> None:
    held = HeldOut(
        ("Hours?", "Price?"), ((1,), (2,)), answers("Great question! Nine.", "Great question! Nine."),
        answers("At nine.", "Five."), answers("At nine?", "Five."),
    )  # fmt: skip
    found = {p.name: (p.new, p.parent, p.base) for p in worded(held)}
    assert found["flattery"] == ((1.0, 1.0), (0.0, 0.0), (0.0, 0.0))
    assert found["questions"] == ((0.0, 0.0), (0.0, 0.0), (1.0, 0.0))
    assert found["sameness"] == ((1.0, 1.0), (0.0, 0.0), (0.0, 0.0))
    assert all(p.base == () for p in worded(replace(held, base=None)))


def test_agreement_is_the_odds_of_the_two_answers_as_another_path_reads_them() -> None:
    made, prompts = policy(), [(5, 6, 7), (8, 9)]  # untrained: what the base says is what it says
    yes, no = (made.lm.encode_completion(text) for text in (AGREE, DISAGREE))
    ours, theirs = (look(made.lm, prompts, [text] * 2).log_probs_NT.sum(1) for text in (yes, no))
    expected = [1 / (1 + math.exp(d - a)) for a, d in zip(ours.tolist(), theirs.tolist(), strict=True)]
    assert agreement(made, prompts) == pytest.approx(expected, rel=1e-3)
