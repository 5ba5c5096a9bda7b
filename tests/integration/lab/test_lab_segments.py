"""Two segments of opposite tastes in the lab: each is rated by weights of its own, from the tables to a version."""

from pathlib import Path

import pytest
import torch

from infra.lab import runner
from infra.lab.options import LabOptions
from infra.lab.world import Setup, folder_of, trainer_settings
from infra.simulate import tastes
from infra.simulate.tastes import considerate
from schemas import tables
from streams.adapters.lake import open_table
from trainer.adapters.lake import TrainerLake
from trainer.adapters.registry import REWARD_FILE, Registry
from trainer.app import loader, run_reproduce
from trainer.core.reward import RewardEnsemble
from trainer.features import featurize

pytestmark = pytest.mark.timeout(1200)
QUICK = {
    "THUMBWHEEL_REWARD__BY": "segment",
    "THUMBWHEEL_REWARD__DOMAIN_LABELS": "20",
    "THUMBWHEEL_REWARD__DOMAIN_USERS": "4",
    "THUMBWHEEL_REWARD__HEADS": "4",
    "THUMBWHEEL_REWARD__L2_GRID": "[0.003, 0.03]",
    "THUMBWHEEL_REWARD__FOLDS": "2",
    "THUMBWHEEL_HOLDOUT_SHARE": "0.15",
    "THUMBWHEEL_JUDGE_SHARE": "0.2",
    "THUMBWHEEL_PPO__ITERATIONS": "1",
    "THUMBWHEEL_MAX_HELD_OUT_PROMPTS": "8",
    "THUMBWHEEL_ANSWERS_PER_HELD_OUT": "1",
    "THUMBWHEEL_SCORE_RESPONSES": "32",
}


def contrary(prompt: str, response: str) -> float:
    """What the others like, these don't."""
    return -considerate(prompt, response)


def test_segments_of_opposite_tastes_have_reward_weights_of_their_own(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    named = (("kind", tastes.DEFAULT), ("curt", f"{__name__}:contrary"))
    options = LabOptions(seeds=1, cycles=1, users=48, answers=600, flips=0.0, spammers=0.0, segments=named)
    made = Setup(options, tmp_path, str(tiny_model), {name: tastes.load(name) for name in options.taste_names()})
    (result,) = runner.run(made)
    assert result.version == "v1"
    settings = trainer_settings(made, 0)
    registry = Registry(settings.registry)
    record = registry.record("v1")
    assert record.config.reward.by == "segment"
    domains = {domain.name: domain for domain in record.reward_model.domains}
    assert sorted(domains) == ["curt", "kind"] and all(domain.own for domain in domains.values())
    in_both = record.labels["train"] - sum(domain.labels for domain in domains.values())
    assert 0 < in_both < 0.2 * record.labels["train"]  # pairs made of two people's thumbs, of either segment
    gain = record.metrics["reward_domains_gain_low"]
    assert gain is not None and gain > 0.03
    card = (registry.folder("v1") / "README.md").read_text(encoding="utf-8")
    assert "2 of 2 have weights of their own" in card and f"`curt`: {domains['curt'].labels} labels" in card
    ensemble = RewardEnsemble.load(registry.folder("v1") / REWARD_FILE)
    assert ensemble.own is not None and ensemble.own.names == ("curt", "kind")
    # Made again: the same traffic, the same weights, the same policy.
    recorded, today = run_reproduce(settings, "v1")
    assert recorded == today
    # Answers of production are scored where they were served.
    scores = open_table(folder_of(tmp_path, 0) / "lake", tables.SCORES).all().collect()
    found = {row["response_id"]: row["head_scores"] for row in scores.iter_rows(named=True)}
    answers = [a for a in TrainerLake(settings.lake).answers(limit=240) if a.response_id in found]
    assert len(answers) == 32 and {a.segment for a in answers} == {"curt", "kind"}
    read = featurize(loader(settings)(), [(a.prompt, a.completion) for a in answers], settings.limits, lambda _: None)
    features_NF = read.features_NF[[read.rows[a.prompt, a.completion] for a in answers]]
    written_NH = torch.tensor([found[a.response_id] for a in answers])
    torch.testing.assert_close(written_NH, ensemble.score_in(features_NF, [a.segment for a in answers]))
    assert float((written_NH - ensemble.score(features_NF)).abs().mean()) > 0.1
