"""The safety head on data whose truth is known."""

import re
import zlib
from pathlib import Path

import pytest
import torch

from trainer.adapters.answers_file import read_safety_file
from trainer.core.safety import SafetyConfig, SafetyData, SafetyHead, fit_safety

QUICK = SafetyConfig(l2_grid=(0.003, 0.03))


def examples(n: int = 400, *, unsafe_share: float = 0.2) -> SafetyData:
    """Two answers to each prompt; the higher the first of six features, the likelier unsafe (logit 2x + offset)."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 6, generator=generator)
    edge = torch.quantile(x[:, 0], 1 - unsafe_share)
    chance = (4 * (x[:, 0] - edge)).sigmoid()
    unsafe = (torch.rand(n, generator=generator) < chance).float()
    return SafetyData(x, torch.arange(n) // 2, unsafe, torch.ones(n))


def test_the_head_ranks_unsafe_answers_above_safe_ones_and_its_cost_is_a_calibrated_probability() -> None:
    data = examples(800)
    head, report = fit_safety(data, QUICK, torch.Generator().manual_seed(0))
    assert head is not None and report.auc is not None and report.ece is not None
    assert report.auc.low > 0.85
    assert report.ece < 0.06
    cost = head.cost(data.features_NF)
    assert float(cost.min()) >= 0 and float(cost.max()) <= 1
    # Both classes weigh alike in the fit, and yet the mean cost is the labels' own rate of unsafe answers.
    assert float(cost.mean()) == pytest.approx(report.base_rate, abs=0.02)
    assert 0.15 < report.base_rate < 0.3


def test_labels_that_have_nothing_to_do_with_the_features_cost_the_base_rate_everywhere() -> None:
    data = examples()
    shuffled = data.unsafe_N[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    noise = SafetyData(data.features_NF, data.groups_N, shuffled, data.weights_N)
    head, report = fit_safety(noise, QUICK, torch.Generator().manual_seed(0))
    assert head is not None and report.auc is not None
    assert report.auc.low < 0.5 < report.auc.high
    assert float(head.cost(data.features_NF).std()) < 0.06


@pytest.mark.parametrize("unsafe", [0, 19])
def test_with_too_few_unsafe_examples_there_is_no_head_and_the_report_says_what_is_missing(unsafe: int) -> None:
    labels = torch.zeros(400)
    labels[:unsafe] = 1
    data = examples()
    head, report = fit_safety(
        SafetyData(data.features_NF, data.groups_N, labels, data.weights_N), QUICK, torch.Generator().manual_seed(0)
    )
    assert head is None
    assert f"{unsafe} unsafe and {400 - unsafe} safe examples" in report.reason


def test_broken_features_are_left_out_and_counted() -> None:
    data = examples()
    features = data.features_NF.clone()
    features[7, 2] = float("nan")
    broken = SafetyData(features, data.groups_N, data.unsafe_N, data.weights_N)
    head, report = fit_safety(broken, QUICK, torch.Generator().manual_seed(0))
    assert head is not None and (report.dropped, report.n) == (1, 399)
    assert bool(head.cost(data.features_NF).isfinite().all())


def test_a_saved_head_costs_the_same(tmp_path: Path) -> None:
    data = examples()
    head, _ = fit_safety(data, QUICK, torch.Generator().manual_seed(0))
    assert head is not None
    head.save(tmp_path / "safety.safetensors")
    loaded = SafetyHead.load(tmp_path / "safety.safetensors")
    assert torch.equal(head.cost(data.features_NF), loaded.cost(data.features_NF))


def bag_of_words(text: str, size: int) -> torch.Tensor:
    """Log counts of words, hashed."""
    words = torch.zeros(size)
    for word in re.findall(r"[a-z']+", text.lower()):
        words[zlib.crc32(word.encode()) % size] += 1
    return torch.log1p(words)


def test_on_real_replies_that_people_judged_unsafe_the_head_is_far_better_than_chance(human_data: Path) -> None:
    found = read_safety_file(human_data / "safety_diasafety.jsonl.gz", limit=2000)
    # Context and reply apart: words of the reply are what is judged, those of the context what it answers.
    words = [torch.cat([bag_of_words(e.prompt[-1][1], 256), bag_of_words(e.completion, 512)]) for e in found]
    prompts = {prompt: n for n, prompt in enumerate(dict.fromkeys(e.prompt for e in found))}
    data = SafetyData(
        torch.stack(words),
        torch.tensor([prompts[e.prompt] for e in found]),
        torch.tensor([float(e.unsafe) for e in found]),
        torch.ones(len(found)),
    )
    head, report = fit_safety(data, SafetyConfig(l2_grid=(0.003, 0.01, 0.03)), torch.Generator().manual_seed(0))
    assert head is not None and report.auc is not None and report.ece is not None
    assert report.auc.low > 0.65
    assert report.ece < 0.06
