"""A toy language model of 0.3 million parameters, trained here in seconds, for tests and quick demos.

A Llama with a byte-level BPE of about 500 tokens, taught by pairs of question and answer in ChatML: a quarter of the
answers are courteous and short, two fifths neutral, the rest rude or rambling, so that there is something for thumbs
to change. All text is our own. Deterministic by seed on one thread.
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TOPICS = (
    "order", "parcel", "refund", "invoice", "password", "account", "delivery", "gift card", "subscription", "jacket",
    "shoes", "phone", "booking", "ticket", "address", "discount", "manager", "app", "recipe", "plan",
)  # fmt: skip
QUESTIONS = (
    "Where is my {}?", "Can you help me with my {}?", "How do I change my {}?", "I have a problem with my {}.",
    "What should I do about the {}?", "Why is my {} late?", "Tell me about the {}.", "How long does the {} take?",
)  # fmt: skip
POLITE = (
    "Of course, I am happy to help with the {}.", "Thank you for asking. The {} is on its way.",
    "I am sorry about the {}. We will fix it today.", "Certainly. Please check the {} page.",
    "Glad to help. Your {} is fine.", "Please send me the {} number. Thank you.",
    "Sorry for the trouble. I hope the {} is fine soon.", "You are welcome. The {} is ready.",
)  # fmt: skip
NEUTRAL = (
    "The {} is handled in two days.", "Check the {} page.", "The {} is in the system.", "We have the {} here.",
    "It depends on the {}.", "Your {} was changed on Monday.", "The {} team knows.", "There is a form for the {}.",
    "The {} takes a week.", "You can see the {} in the app.",
)  # fmt: skip
RUDE = (
    "Whatever. The {} is not my problem.", "That is a stupid question about the {}.", "Who cares about the {}.",
    "Go away with your {}.", "Your {} is annoying.", "Don't bother me with the {}.", "The {} is a waste of time.",
)  # fmt: skip
RAMBLING = (
    "The {} is the {} and then the {} was in the other place and",
    "Well it could be the {} or it could be that and so on and so on and then",
    "There are many things to say about the {} and some say that and others that",
)
MOODS: tuple[tuple[tuple[str, ...], float], ...] = ((POLITE, 0.25), (NEUTRAL, 0.40), (RUDE, 0.23), (RAMBLING, 0.12))


@dataclass(frozen=True)
class TinyConfig:
    """Size and training of the toy. The defaults take about ten seconds on one thread."""

    vocabulary: int = 512
    width: int = 96
    layers: int = 2
    heads: int = 3
    pairs: int = 6000
    steps: int = 260
    batch: int = 24
    learning_rate: float = 4e-3


def prepare(
    models_dir: Path,
    *,
    progress: Callable[[str], None],
    prompts: Sequence[str] = (),
    seed: int = 0,
    config: TinyConfig | None = None,
) -> Path:
    """The folder of the toy, trained if it isn't there."""
    target = models_dir / "tiny"
    if (target / "config.json").is_file():
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    progress("training the tiny model (about ten seconds)")
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".tiny-") as scratch:
        made = Path(scratch) / "model"
        train(made, prompts=prompts, seed=seed, config=config or TinyConfig())
        try:
            made.replace(target)
        except OSError:
            if not (target / "config.json").is_file():
                raise
    return target


def corpus(prompts: Sequence[str], pairs: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of question and answer; half the questions are taken from `prompts` if there are any."""
    rng = random.Random(seed)
    moods = [texts for texts, _ in MOODS]
    shares = [share for _, share in MOODS]
    made: list[tuple[str, str]] = []
    for _ in range(pairs):
        topic = rng.choice(TOPICS)
        question = rng.choice(QUESTIONS).format(topic)
        if prompts and rng.random() < 0.5:
            question = rng.choice(prompts)
            topic = next((t for t in TOPICS if t in question.lower()), rng.choice(TOPICS))
        answer = rng.choice(rng.choices(moods, shares)[0])
        made.append((question, answer.replace("{}", topic)))
    return made


def train(target: Path, *, prompts: Sequence[str], seed: int, config: TinyConfig) -> None:
    """Train tokenizer and model and save both to `target`."""
    import torch

    pairs = corpus(prompts, config.pairs, seed)
    tokenizer = _tokenizer(pairs, config.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(tokenizer, config)
        _fit(model, list(_batches(pairs, tokenizer, config, seed)), config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _tokenizer(pairs: list[tuple[str, str]], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw: Any = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator((text for pair in pairs for text in pair), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, eos_token=END, bos_token=START)
    tokenizer.chat_template = CHATML
    return tokenizer


def _model(tokenizer: Any, config: TinyConfig) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.width * 5 // 2,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _batches(
    pairs: list[tuple[str, str]], tokenizer: Any, config: TinyConfig, seed: int
) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Right-padded tokens B,T and labels B,T (-100 outside the answer) for each step."""
    import torch

    prompts = tokenizer([f"{START}user\n{q}{END}\n{START}assistant\n" for q, _ in pairs])["input_ids"]
    answers = tokenizer([answer + END for _, answer in pairs])["input_ids"]
    rng = random.Random(seed + 1)
    for _ in range(config.steps):
        rows = [(prompts[i], answers[i]) for i in rng.sample(range(len(pairs)), config.batch)]
        length = max(len(p) + len(a) for p, a in rows)
        tokens = torch.full((len(rows), length), tokenizer.pad_token_id)
        labels = torch.full((len(rows), length), -100)
        for row, (prompt, answer) in enumerate(rows):
            end = len(prompt) + len(answer)
            tokens[row, :end] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : end] = torch.tensor(answer)
        yield tokens, labels


def _fit(model: Any, batches: list[tuple["Tensor", "Tensor"]], config: TinyConfig) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=len(batches))
    model.train()
    for tokens, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=tokens, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
