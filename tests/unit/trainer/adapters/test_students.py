"""Students cut out of a teacher, and their folders."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from schemas.errors import ModelError
from tests.integration.trainer_lake import tiny_base
from tests.unit.trainer.core.language import EOS, Letters, policy
from trainer.adapters.policies import LanguageModel, LoraSettings, Policy, attach_policy, load_base
from trainer.adapters.students import cut_student, finish, learning, require_smaller, size_of, write_student

TOKENS = torch.tensor([[3, 5, 4, 9]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


def teacher_on(base: Path) -> Policy:
    torch.manual_seed(0)
    made = attach_policy(load_base(str(base), dtype="float32"), LoraSettings(rank=2, alpha=4, top_share=1.0))
    for parameter in made.adapter_parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def logits(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=TOKENS).logits


def test_a_cut_student_is_its_teachers_first_block_and_head_with_the_adapter_merged_in() -> None:
    teacher = policy(trained=True)
    before = logits(teacher.lm)
    student = cut_student(teacher, 1)
    decoder = teacher.lm.model.get_decoder()
    held = decoder.layers
    decoder.layers = held[:1]
    expected = logits(teacher.lm)
    decoder.layers = held
    assert torch.allclose(logits(student), expected, atol=1e-5) and not torch.allclose(expected, before, atol=1e-2)
    assert torch.equal(logits(teacher.lm), before), "the teacher is as it was"
    assert student.n_layers == 1 and student.model.config.num_hidden_layers == 1
    assert not any("lora" in name for name, _ in student.model.named_parameters())
    shared = {p.data_ptr() for p in teacher.lm.model.parameters()} & {p.data_ptr() for p in student.model.parameters()}
    assert not shared, "what the student learns must not reach its teacher"


def test_blocks_that_are_kept_know_their_new_places() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=24, n_positions=32, n_embd=16, n_layer=4, n_head=2, eos_token_id=EOS)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    lm = LanguageModel(model=model, tokenizer=Letters(), eos_id=EOS, pad_id=EOS, name="gpt2")
    student = cut_student(Policy(lm, torch.nn.Linear(16, 1)), 2)
    decoder = student.model.get_decoder()
    assert [block.attn.layer_idx for block in decoder.h] == [0, 1] and student.n_layers == 2
    assert torch.equal(decoder.h[1].mlp.c_fc.weight, model.get_decoder().h[3].mlp.c_fc.weight)


def test_more_blocks_than_there_are_make_no_student() -> None:
    with pytest.raises(ModelError, match="'letters' has 2 layers: 2 of 2 blocks can't be taken"):
        cut_student(policy(), 2)


def test_a_student_must_be_smaller_than_its_teacher() -> None:
    teacher = policy()
    require_smaller(cut_student(teacher, 1), teacher.lm)
    with pytest.raises(ModelError, match="a student must be smaller"):
        require_smaller(teacher.lm, cut_student(teacher, 1))


@pytest.mark.parametrize("rank", [0, 2])
def test_all_weights_learn_or_those_of_an_adapter_that_is_merged_in_the_end(rank: int) -> None:
    student = cut_student(policy(trained=True), 1)
    before = logits(student)
    made, parameters = learning(student, rank)
    # Embeddings, norm and output matrix; seven matrices and two norms of the block. Or a pair for each of the seven.
    assert len(parameters) == (7 * 2 if rank else 3 + 9)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05)
    learned = logits(made.lm)
    done = finish(made, torch.float32)
    assert torch.allclose(logits(done.lm), learned, atol=1e-5) and not torch.allclose(learned, before, atol=1e-2)
    assert not any("lora" in name for name, _ in done.lm.model.named_parameters())


def test_a_students_folder_holds_the_model_that_learned_and_nothing_else_runs(base: Path, tmp_path: Path) -> None:
    student = cut_student(teacher_on(base), 1)
    told: list[str] = []

    def fill(folder: Path, digest: str) -> None:
        told.append(digest)
        (folder / "record.json").write_text("{}")

    digest = write_student(student, tmp_path / "students" / "one", fill, lambda folder: None)
    folder = tmp_path / "students" / "one"
    assert told == [digest] and [f.name for f in (tmp_path / "students").iterdir()] == ["one"]
    assert {f.suffix for f in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 1
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(loaded(input_ids=TOKENS).logits, logits(student))


def test_where_a_folder_can_not_be_filled_nothing_is_left(base: Path, tmp_path: Path) -> None:
    def full(folder: Path, digest: str) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_student(cut_student(teacher_on(base), 1), tmp_path / "one", full, lambda folder: None)
    assert list(tmp_path.iterdir()) == []


def test_a_size_counts_weights_and_what_a_token_in_flight_holds() -> None:
    teacher = policy()
    found = size_of(teacher.lm, adapter=100)
    assert found.parameters == teacher.lm.n_parameters() + 100 and found.weight_bytes == 4 * found.parameters
    # Keys and values of two layers with one head of 16 numbers, four bytes each.
    assert found.cache_bytes == 2 * 2 * 1 * 16 * 4
