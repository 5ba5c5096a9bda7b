"""Adapters on disk and off."""

import json
from pathlib import Path

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM
from transformers.cache_utils import DynamicLayer

from schemas.errors import CorruptAdapter, ModelError
from tests.unit.trainer.core.language import language_model, policy
from trainer.adapters.blocks import RoomyLayer
from trainer.adapters.policies import LoraSettings, attach_policy, load_base, save_adapter

LORA = LoraSettings(rank=4, alpha=8, top_share=1.0)
TOKENS = torch.tensor([[5, 6, 7, 8]])


def test_an_adapter_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    made = policy(trained=True)
    expected = made.lm.model(input_ids=TOKENS).logits
    save_adapter(made, tmp_path / "v1")
    loaded = attach_policy(language_model(), LORA, adapter_dir=tmp_path / "v1")
    torch.testing.assert_close(loaded.lm.model(input_ids=TOKENS).logits, expected)
    assert torch.equal(loaded.head.weight, made.head.weight)
    assert all(p.requires_grad for p in loaded.adapter_parameters())


def test_the_files_are_pefts_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    made = policy(trained=True)
    save_adapter(made, tmp_path / "a")
    save_adapter(made, tmp_path / "b")
    for name in ("adapter_config.json", "adapter_model.safetensors", "value_head.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_the_reference_is_the_base_as_if_there_were_no_adapter() -> None:
    made = policy(trained=True)
    plain = language_model().model(input_ids=TOKENS).logits
    assert not torch.allclose(made.lm.model(input_ids=TOKENS).logits, plain)
    with made.reference():
        torch.testing.assert_close(made.lm.model(input_ids=TOKENS).logits, plain)
    assert not torch.allclose(made.lm.model(input_ids=TOKENS).logits, plain)


def test_only_the_top_layers_get_an_adapter_when_half_of_them_are_asked_for() -> None:
    made = policy(lora=LoraSettings(top_share=0.5))
    assert len(made.adapter_parameters()) == 7 * 2
    names = [n for n, _ in made.lm.model.named_parameters() if "lora_" in n]
    assert all(".layers.1." in n for n in names)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptAdapter, match=r"adapter_model\.safetensors is missing"):
        attach_policy(language_model(), LORA, adapter_dir=tmp_path)


def test_unknown_target_modules_are_named_in_the_error() -> None:
    with pytest.raises(ModelError, match="no modules named nonsense"):
        attach_policy(language_model(), LoraSettings(target_modules=("nonsense",)))


def test_a_second_policy_on_one_base_is_refused() -> None:
    lm = language_model()
    attach_policy(lm, LORA)
    with pytest.raises(ModelError, match="carries a policy already"):
        attach_policy(lm, LORA)


def test_a_path_without_a_model_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Give a folder with config\.json"):
        load_base(str(tmp_path))


def test_a_separate_critic_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    made = policy(critic="separate")
    with torch.no_grad():
        for parameter in made.value_parameters():
            parameter.normal_(0, 0.2)
    save_adapter(made, tmp_path / "v1")
    loaded = attach_policy(language_model(), LORA, adapter_dir=tmp_path / "v1", critic="separate")
    for a, b in zip(made.value_parameters(), loaded.value_parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(p.requires_grad for p in (*loaded.adapter_parameters(), *loaded.value_parameters()))


def test_a_separate_critic_does_not_change_what_the_policy_says() -> None:
    made = policy(critic="separate")
    expected = made.lm.model(input_ids=TOKENS).logits
    with torch.no_grad():
        for parameter in made.value_parameters():
            parameter.normal_(0, 0.2)
    torch.testing.assert_close(made.lm.model(input_ids=TOKENS).logits, expected)
    with made.valuing():
        assert not torch.allclose(made.lm.model(input_ids=TOKENS).logits, expected)
    torch.testing.assert_close(made.lm.model(input_ids=TOKENS).logits, expected)


@torch.no_grad()
def test_decoding_merges_the_adapter_and_leaves_every_weight_as_it_was() -> None:
    made = policy(trained=True)
    before = made.lm.model(input_ids=TOKENS).logits
    kept = {name: p.clone() for name, p in made.lm.model.named_parameters()}
    with made.lm.decoding():
        assert not any("lora_" in name for name, _ in made.lm.model.named_parameters())
        torch.testing.assert_close(made.lm.model(input_ids=TOKENS).logits, before, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(kept[name], p) for name, p in made.lm.model.named_parameters())
    plain = language_model().model(input_ids=TOKENS).logits
    with made.reference(), made.lm.decoding():
        torch.testing.assert_close(made.lm.model(input_ids=TOKENS).logits, plain)


def test_a_model_that_cannot_be_entered_above_its_embeddings_is_run_as_a_whole() -> None:
    lm = language_model()
    config = OPTConfig(
        vocab_size=24,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        dropout=0.0,
    )
    lm.model = OPTForCausalLM(config).requires_grad_(False).eval()  # adds positions to whatever it is entered with
    attach_policy(lm, LoraSettings(top_share=0.5, target_modules=("q_proj", "v_proj")))
    assert lm.split == 0


def test_a_roomy_cache_holds_what_a_plain_one_does_beyond_its_room_too() -> None:
    generator = torch.Generator().manual_seed(0)
    roomy, plain = RoomyLayer(3), DynamicLayer()

    def both(rows: int, tokens: int) -> None:
        keys, values = (torch.randn(rows, 1, tokens, 2, generator=generator) for _ in range(2))
        for found, expected in zip(roomy.update(keys, values), plain.update(keys, values), strict=True):
            assert torch.equal(found, expected)

    both(2, 2)
    for layer in (roomy, plain):
        layer.batch_repeat_interleave(2)
    both(4, 1)
    for layer in (roomy, plain):
        layer.batch_select_indices(torch.tensor([0, 3]))
    both(2, 1)
    both(2, 1)
    assert roomy.get_seq_length() == 5
