"""The toy model: its text, and that it is the same each time."""

from pathlib import Path

from safetensors.torch import load_file

from infra.models import tiny
from infra.models.catalog import silent
from trainer.adapters.policies import load_base

QUICK = tiny.TinyConfig(pairs=300, steps=3, batch=4)
PROMPTS = ("What are your opening hours on Sunday?", "Where is my refund?")


def test_a_quarter_of_the_answers_is_courteous_and_a_third_rude_or_rambling() -> None:
    answers = [answer for _, answer in tiny.corpus((), 4000, seed=0)]
    courteous = sum(any(w in a for w in ("happy", "Thank", "orry", "Certainly", "Glad", "welcome")) for a in answers)
    rude = sum(
        any(w in a for w in ("Whatever", "stupid", "cares", "Go away", "annoy", "bother", "waste")) for a in answers
    )
    rambling = sum(not a.endswith(".") for a in answers)
    assert 0.2 < courteous / 4000 < 0.3
    assert 0.3 < (rude + rambling) / 4000 < 0.4


def test_the_prompts_given_are_among_the_questions() -> None:
    questions = {q for q, _ in tiny.corpus(PROMPTS, 200, seed=0)}
    assert questions.issuperset(PROMPTS)


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny.train(tmp_path / name, prompts=PROMPTS, seed=seed, config=QUICK)
        weights.append(load_file(tmp_path / name / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"])
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_the_trainer_can_load_it_and_its_eos_is_not_its_pad(tmp_path: Path) -> None:
    folder = tiny.prepare(tmp_path, progress=silent, prompts=PROMPTS, config=QUICK)
    lm = load_base(str(folder), dtype="float32")
    assert lm.eos_id != lm.pad_id
    ids = lm.encode_prompt([{"role": "user", "content": "Where is my refund?"}])
    text = lm.tokenizer.decode(ids)
    assert text.replace(" ", "").startswith("<|im_start|>user") and "assistant" in text
    assert lm.encode_completion("Thank you.")[-1] == lm.eos_id
    assert lm.decode(lm.encode_completion("Thank you.")) == "Thank you."
    assert lm.n_parameters() < 400_000
