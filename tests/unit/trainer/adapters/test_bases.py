"""Base models as they come: without a chat template, without a pad token, in formats that are not read."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from schemas.errors import ModelError
from trainer.adapters.policies import LoraSettings, attach_policy, load_base
from trainer.core.rollout import SamplingConfig, sample

CHAT = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"})
Alter = Callable[[dict[str, dict[str, Any]]], Path]


@pytest.fixture
def altered(tmp_path: Path, tiny_model: Path) -> Alter:
    """The tiny model with keys of its JSON files set anew."""

    def alter(changes: dict[str, dict[str, Any]]) -> Path:
        folder = Path(copytree(tiny_model, tmp_path / "base"))
        for name, keys in changes.items():
            body = json.loads((folder / name).read_text()) | keys
            (folder / name).write_text(json.dumps(body))
        return folder

    return alter


def test_a_base_without_a_chat_template_gets_a_plain_one(altered: Alter) -> None:
    folder = altered({})
    (folder / "chat_template.jinja").unlink()
    lm = load_base(str(folder), device="cpu")
    assert lm.tokenizer.decode(lm.encode_prompt(CHAT)) == "System: Be kind.\nUser: Where is it?\nAssistant:"


def test_without_a_pad_token_eos_pads_and_the_answers_are_the_same(altered: Alter, tiny_model: Path) -> None:
    """Prompts of two lengths, so that one is padded; answers that end early, so that what follows EOS matters."""
    plain = altered({"tokenizer_config.json": {"pad_token": None}, "config.json": {"pad_token_id": None}})
    made = []
    for folder in (tiny_model, plain):
        lm = load_base(str(folder), dtype="float32", device="cpu")
        torch.manual_seed(0)
        policy = attach_policy(lm, LoraSettings())
        prompts = [lm.encode_prompt(CHAT), lm.encode_prompt(CHAT[1:])]
        drawn = sample(policy, prompts, 4, SamplingConfig(max_new_tokens=24), torch.Generator().manual_seed(0))
        made.append((lm.pad_id, lm.eos_id, drawn.answers()))
    (pad, eos, expected), (eos_as_pad, same_eos, found) = made
    assert (pad, eos, eos_as_pad, same_eos) == (0, 2, 2, 2)
    assert found == expected
    assert any(len(answer) < 24 for answer in found)


def test_of_several_tokens_that_end_a_turn_the_tokenizers_own_is_taken(altered: Alter) -> None:
    folder = altered({"generation_config.json": {"eos_token_id": [7, 2]}})
    assert load_base(str(folder), device="cpu").eos_id == 2


def test_a_base_that_names_no_end_of_a_turn_is_refused(altered: Alter) -> None:
    nothing = {"eos_token_id": None}
    folder = altered(
        {"config.json": nothing, "generation_config.json": nothing, "tokenizer_config.json": {"eos_token": None}}
    )
    with pytest.raises(ModelError, match="names no end-of-sequence token; set eos_token_id in its config"):
        load_base(str(folder), device="cpu")


def test_weights_in_a_pickle_are_not_read(altered: Alter) -> None:
    folder = altered({})
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_base(str(folder), device="cpu")


def test_a_users_text_that_names_a_token_without_embedding_is_read_without_it(altered: Alter) -> None:
    folder = altered({})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra{n}>" for n in range(512)])
    tokenizer.save_pretrained(folder)
    lm = load_base(str(folder), device="cpu")
    assert lm.tokenizer("<extra511>", add_special_tokens=False)["input_ids"] > [511]
    assert lm.encode_completion("Hello<extra511>") == lm.encode_completion("Hello")
    asked, plain = ({"role": "user", "content": text} for text in ("Where<extra511> is it?", "Where is it?"))
    assert lm.encode_prompt([asked]) == lm.encode_prompt([plain])


def test_a_tokenizer_of_another_model_is_refused(altered: Alter) -> None:
    folder = altered({})
    small = LlamaConfig(vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, eos_token_id=2)
    LlamaForCausalLM(small).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"its tokenizer has \d+ tokens, and there are 100 embeddings"):
        load_base(str(folder), device="cpu")


def test_an_output_matrix_with_a_bias_is_refused(altered: Alter, tmp_path: Path) -> None:
    config = PhiConfig(vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    model = PhiForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    folder = altered({})
    (folder / "config.json").unlink()
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="not its final states times its output matrix"):
        load_base(str(folder), device="cpu")
