"""Adapters on disk and off."""

import json
from pathlib import Path

import pytest
import torch

from schemas.errors import CorruptAdapter, ModelError
from tests.unit.trainer.core.language import language_model, policy
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
