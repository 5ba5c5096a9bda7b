"""The two sides of `python -m benchmarks reward`, each in a process of its own: this trainer, and TRL's RewardTrainer.

python -m benchmarks.reward_peers ours|trl CASE      CASE is a `Case` as JSON

Both learn the same pairs, eight to an optimizer step, from the same model in a folder. Prints, as JSON, CPU seconds for
a pair (without the first step) and how many tokens were put through the model for it. Only the standard library is
imported before the side is chosen: TRL's runs in a virtual environment of its own.
"""

import json
import random
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAD, EOS = 0, 1
PROMPT_DECILES = (12, 40, 46, 70, 94, 116, 143, 172, 204, 284, 400)
ANSWER_DECILES = (3, 9, 13, 19, 26, 34, 42, 52, 64, 95, 180)
"""Tokens of hh_harmless's prompts and answers by SmolLM2's tokenizer, smallest and largest rounded."""
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "layers_to_transform": [3, 4, 5]}
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Case:
    """What both sides do. `bf16` and `checkpointing` are TRL's settings, `reading` is how ours lays out the tokens:
    prompts shared, each answer with its prompt again, or that and every row padded to the longest, as TRL does."""

    folder: str
    vocabulary: int
    kind: str = "full"
    dtype: str = "float32"
    bf16: bool = False
    checkpointing: bool = True
    reading: str = "shared"
    heads: int = 16
    steps: int = 5
    """The first of them warms up."""
    pairs_per_step: int = 8


@dataclass
class Meter:
    """CPU seconds of the steps after the first one."""

    seconds: list[float] = field(default_factory=list[float])
    _last: float = 0.0

    def start(self) -> None:
        self._last = _cpu()

    def step_done(self) -> None:
        now = _cpu()
        self.seconds.append(now - self._last)
        self._last = now

    def report(self, case: Case, tokens: float) -> str:
        """A line of JSON."""
        pairs = case.pairs_per_step * (len(self.seconds) - 1)
        return json.dumps({"cpu_seconds_a_pair": sum(self.seconds[1:]) / pairs, "tokens_a_pair": tokens})


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def pairs_of(case: Case) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompt, chosen and rejected answer of each pair: random tokens, the same for both sides."""
    drawn = random.Random(1)

    def length(deciles: tuple[int, ...]) -> int:
        part, share = divmod(10 * drawn.random(), 1)
        low, high = deciles[int(part)], deciles[int(part) + 1]
        return round(low + share * (high - low))

    def tokens(n: int) -> list[int]:
        return [drawn.randrange(3, case.vocabulary) for _ in range(n)]

    made = range(case.steps * case.pairs_per_step)
    return [(tokens(length(PROMPT_DECILES)), *((*tokens(length(ANSWER_DECILES)), EOS) for _ in range(2))) for _ in made]  # type: ignore[misc]


def ours(case: Case) -> str:
    """The trunk with its heads, as a cycle trains it; heads begin at random here, which takes no time from a step."""
    import torch

    from trainer.adapters.policies import LoraSettings, load_base
    from trainer.adapters.trunks import make_trunk
    from trainer.core import reward_trunk
    from trainer.core.reward_data import RewardData
    from trainer.core.reward_fit import RewardConfig

    kind = "lora" if case.kind == "lora" else "full"
    base = load_base(case.folder, dtype=case.dtype, device="cpu")
    trunk = make_trunk(base, kind, LoraSettings(rank=8, alpha=16, top_share=0.5))
    pairs = pairs_of(case)
    n = len(pairs)
    data = RewardData(
        features_NF=torch.randn(2 * n, 2 * base.width, generator=torch.Generator().manual_seed(0)),
        lengths_N=torch.tensor([len(a) for _, *answers in pairs for a in answers]),
        groups_N=torch.arange(n).repeat_interleave(2),
        pairs_P2=torch.arange(2 * n).view(-1, 2),
        pair_weights_P=torch.ones(n),
    )
    texts = reward_trunk.Texts(
        tuple(tuple(prompt) for prompt, *_ in pairs for _ in range(2)),
        tuple(tuple(a) for _, *answers in pairs for a in answers),
    )
    config = RewardConfig(
        heads=case.heads, trunk=kind, trunk_labels=case.pairs_per_step, l2_grid=(0.01,), folds=2, max_steps=5
    )
    read = list[int]()
    _watch(reward_trunk, case.reading, read)
    meter = Meter()
    generator = torch.Generator().manual_seed(0)
    start = reward_trunk.Joint.start

    def started(*given: Any) -> Any:
        joint = start(*given)
        meter.start()
        return joint

    reward_trunk.Joint.start = started  # type: ignore[method-assign]
    reward_trunk.train_trunk(trunk, data, texts, config, generator, progress=lambda done, total: meter.step_done())
    return meter.report(case, sum(read) / n)


def _watch(module: Any, reading: str, read: list[int]) -> None:
    """Count the places of the rows that go through the model; lay them out otherwise where a part is switched off."""
    from trainer.core import packing

    pack = module.pack
    together: Callable[..., Any] = module.read_scores

    def counted(groups: Any, **given: Any) -> Any:
        packed = pack(groups, **given)
        read.append(packed.tokens_RL.numel())
        return packed

    def apart(trunk: Any, joint: Any, groups: Any) -> Any:
        alone = [packing.Group(g.prompt, (a,), (i,)) for g in groups for a, i in zip(g.answers, g.indices, strict=True)]
        return together(trunk, joint, alone)

    module.pack = counted
    if reading != "shared":
        module.read_scores = apart
    if reading == "padded":
        module.micro_units = lambda units, texts, room: [list(units)]
        packing._lay_out = _a_row_each  # pyright: ignore[reportPrivateUsage]


def _a_row_each(groups: Any) -> tuple[tuple[tuple[int, int], ...], int, int]:
    """Padded to the longest."""
    return tuple((row, 0) for row in range(len(groups))), len(groups), max(g.n_tokens for g in groups)


def trl(case: Case) -> str:
    """RewardTrainer of TRL 1.16 with its defaults but for what the case says."""
    import torch
    from datasets import Dataset  # pyright: ignore
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback, set_seed
    from trl import RewardConfig, RewardTrainer  # pyright: ignore

    meter = Meter()

    class Clock(TrainerCallback):  # pyright: ignore[reportUntypedBaseClass]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.step_done()

    set_seed(0)
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(
        case.folder, dtype=getattr(torch, case.dtype), num_labels=1
    )
    pairs = pairs_of(case)
    data = Dataset.from_list(
        [{"chosen_ids": [*p, *chosen], "rejected_ids": [*p, *rejected]} for p, chosen, rejected in pairs]
    )
    lora = LoraConfig(**LORA, target_modules=MATRICES, task_type="SEQ_CLS", modules_to_save=["score"])
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(Path(case.folder) / "trl"),
            num_train_epochs=1,
            bf16=case.bf16,
            gradient_checkpointing=case.checkpointing,
            per_device_train_batch_size=case.pairs_per_step,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(case.folder),
        peft_config=lora if case.kind == "lora" else None,
        callbacks=[Clock()],
    )
    seen = list[int]()
    collate = trainer.data_collator

    def counted(rows: Any) -> Any:
        batch = collate(rows)
        seen.append(batch["input_ids"].numel())
        return batch

    trainer.data_collator = counted
    trainer.train()
    return meter.report(case, sum(seen) / len(pairs))


if __name__ == "__main__":
    side = {"ours": ours, "trl": trl}[sys.argv[1]]
    print(side(Case(**json.loads(sys.argv[2]))))
