"""Features are those of an answer alone, whatever else is read; they are kept, bounded, checked and forgotten."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.integration import trainer_lake as lake
from trainer.adapters.feature_cache import FeatureCache, space_of
from trainer.adapters.files import remove_whole
from trainer.adapters.policies import LanguageModel, LoraSettings, attach_policy, load_base
from trainer.core.labels import Labels, RatingRow
from trainer.features import AnswerKey, featurize, in_order_of_time
from trainer.settings import Limits

LIMITS = Limits()


def answer(n: int, text: str) -> AnswerKey:
    return (("user", f"tea {lake.WORDS[n % 12]} {lake.WORDS[n // 12 % 12]}"),), text


ANSWERS = [answer(n, f"{lake.WORDS[n % 5]} milk {lake.WORDS[n % 7]}"[: 8 + n]) for n in range(20)]
ANSWERS += [answer(0, "no"), answer(0, "sure thanks"), answer(3, "busy")]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_base(str(lake.tiny_base(tmp_path_factory.mktemp("base"))), dtype="float32", device="cpu")


def cache(folder: Path, *, space: str = "one", max_bytes: int = 10**9, seconds: float = 0.0) -> FeatureCache:
    return FeatureCache(folder / "features", space=space, max_bytes=max_bytes, seconds=seconds)


def features(lm: LanguageModel, answers: list[AnswerKey], kept: FeatureCache | None = None, limits: Limits = LIMITS):
    table = featurize(lm, answers, limits, lambda share: None, kept)
    return {key: table.features_NF[row] for key, row in table.rows.items()}


def same(some: dict[AnswerKey, torch.Tensor], others: dict[AnswerKey, torch.Tensor]) -> bool:
    return all(torch.equal(some[key], others[key]) for key in some)


def test_an_answer_has_the_same_features_bit_by_bit_alone_and_among_others(lm: LanguageModel) -> None:
    together = features(lm, ANSWERS)
    assert all(same(features(lm, [key]), together) for key in ANSWERS[1:3] + ANSWERS[4:20])
    pair = [ANSWERS[0], ANSWERS[20]]  # of one prompt, the first two: read together whatever comes later
    assert same(features(lm, pair), together)
    assert same(features(lm, list(reversed(ANSWERS[4:20]))), together)


def test_several_threads_read_the_same_bits_as_one(lm: LanguageModel) -> None:
    alone = features(lm, ANSWERS)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert same(features(lm, ANSWERS), alone) and same(features(lm, ANSWERS[:1]), features(lm, ANSWERS[:1]))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)


def test_an_adapter_on_the_base_is_off_while_answers_are_read(tmp_path: Path) -> None:
    base = load_base(str(lake.tiny_base(tmp_path)), dtype="float32", device="cpu")
    plain = features(base, ANSWERS)
    policy = attach_policy(base, LoraSettings(rank=2))
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            parameter.add_(0.5)
    assert same(features(base, ANSWERS), plain)


def test_kept_features_equal_fresh_ones_and_nothing_is_read_twice(tmp_path: Path, lm: LanguageModel) -> None:
    first = cache(tmp_path)
    fresh = features(lm, ANSWERS[:12], first)
    assert (first.read, first.kept) == (12, 0)
    again = cache(tmp_path)
    found = features(lm, ANSWERS, again)
    # the twelve but the answers to prompts 0 and 3, which stand with another one this time
    assert (again.read, again.kept) == (13, 10)
    assert same({key: fresh[key] for key in ANSWERS[4:12]}, found) and same(found, features(lm, ANSWERS))


def test_a_block_that_is_damaged_is_read_anew(tmp_path: Path, lm: LanguageModel) -> None:
    fresh = features(lm, ANSWERS, cache(tmp_path, seconds=1e9))
    (block,) = (tmp_path / "features/one").iterdir()
    damaged = bytearray(block.read_bytes())
    damaged[-1] ^= 1
    block.write_bytes(damaged)
    again = cache(tmp_path, seconds=1e9)
    assert same(features(lm, ANSWERS, again), fresh) and (again.read, again.kept) == (23, 0)
    block.write_bytes(b"nothing")
    cut = cache(tmp_path, seconds=1e9)
    assert same(features(lm, ANSWERS, cut), fresh) and (cut.read, cut.kept) == (23, 0)


def test_another_base_type_of_numbers_or_limit_finds_nothing(tmp_path: Path, lm: LanguageModel) -> None:
    decides = {"base": "a", "numbers": ["float32", "cpu", 1]}
    spaces = [space_of(decides), space_of(decides | {"base": "b"}), space_of({**decides, "numbers": ["x", "cpu", 1]})]
    for space in spaces:
        kept = cache(tmp_path, space=space)
        features(lm, ANSWERS[:8], kept)
        assert (kept.read, kept.kept) == (8, 0)
    shorter = cache(tmp_path, space=spaces[0])
    features(lm, ANSWERS[:8], shorter, Limits(answer_tokens=2))
    assert (shorter.read, shorter.kept) == (8, 0)


def test_what_was_not_used_for_longest_goes_beyond_the_bound(tmp_path: Path, lm: LanguageModel) -> None:
    parts = [ANSWERS[4:8], ANSWERS[8:12], ANSWERS[12:16]]
    old: set[Path] = set()
    for n, part in enumerate(parts[:2]):
        features(lm, part, cache(tmp_path))
        (new,) = set((tmp_path / "features/one").iterdir()) - old
        os.utime(new, (n, n))
        old.add(new)
    size = sum(block.stat().st_size for block in (tmp_path / "features/one").iterdir())
    features(lm, parts[0], cache(tmp_path))  # used now: the second one has waited longer
    features(lm, parts[2], cache(tmp_path, max_bytes=size))
    assert sum(block.stat().st_size for block in (tmp_path / "features/one").iterdir()) <= size
    counted = [cache(tmp_path) for _ in parts]
    for part, kept in zip(parts, counted, strict=True):
        kept.find(_groups(lm, part))
    assert [kept.kept for kept in counted] == [4, 0, 4]


def _groups(lm: LanguageModel, answers: list[AnswerKey]):
    from trainer.core.reading import reading_groups
    from trainer.features import encode_answer, encode_prompt

    prompts = [encode_prompt(lm, prompt, LIMITS) for prompt, _ in answers]
    return reading_groups(prompts, [encode_answer(lm, text, LIMITS) for _, text in answers])


def test_after_the_folder_was_removed_who_had_it_open_keeps_nothing_more(tmp_path: Path, lm: LanguageModel) -> None:
    before = cache(tmp_path)
    features(lm, ANSWERS[:8], before)
    assert remove_whole(tmp_path / "features") and not remove_whole(tmp_path / "features")
    features(lm, ANSWERS[8:16], before)
    assert list(tmp_path.iterdir()) == []
    after = cache(tmp_path)  # another process begins anew
    features(lm, ANSWERS[8:16], before)
    assert not list(tmp_path.glob("features/*/*")) and after.find(_groups(lm, ANSWERS)) == {}


def test_a_disk_that_takes_nothing_costs_the_cache_and_not_the_reading(tmp_path: Path, lm: LanguageModel) -> None:
    (tmp_path / "features").write_text("a file where the folder should be")
    assert same(features(lm, ANSWERS, cache(tmp_path)), features(lm, ANSWERS))


def test_an_answer_that_comes_later_leaves_earlier_ones_as_they_were_read(lm: LanguageModel) -> None:
    prompt = (("user", "tea milk cup"),)
    row = RatingRow("a", "p", prompt, "sure", True, 1.0, "thumb", None, 5.0)
    rows = [row, replace(row, id="b", completion="no", judged_at=3.0)]
    later = [*rows, replace(row, id="c", completion="busy", judged_at=9.0)]
    first, second = (in_order_of_time([Labels((), tuple(r))], [(prompt, "other")]) for r in (rows, later))
    assert [text for _, text in first] == ["no", "sure", "other"]
    assert [text for _, text in second] == ["no", "sure", "busy", "other"]
    assert same({key: features(lm, first)[key] for key in first[:2]}, features(lm, second))
