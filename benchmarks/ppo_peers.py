"""The two sides of `python -m benchmarks ppo`, each in a process of its own: this trainer, and TRL's PPOTrainer.

python -m benchmarks.ppo_peers ours|trl CASE      CASE is a `Case` as JSON

Both read the same model and tokenizer from a folder and make the same number of updates, of which the first is not
counted. Prints, as JSON, CPU seconds of rollout and update together, the peak of memory above the loaded models, and
the mean length of the answers. Only the standard library is imported before the side is chosen: TRL's runs in a
virtual environment of its own.
"""

import json
import os
import resource
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAD, EOS = 0, 1
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj", "o_proj"]}
TOP_LAYERS = [3, 4, 5]
PROMPT_TOKENS = (12, 20)


@dataclass(frozen=True)
class Case:
    """What both sides do: `prompts` prompts of 12 to 20 random tokens, one answer to each, `epochs` passes."""

    folder: str
    vocabulary: int
    dtype: str = "float32"
    critic: str = "shared"
    prompts: int = 16
    new_tokens: int = 48
    epochs: int = 4
    updates: int = 3
    """The first of them warms up."""


@dataclass
class Meter:
    """CPU seconds of each update, and memory since the models were loaded."""

    seconds: list[float] = field(default_factory=list[float])
    lengths: list[float] = field(default_factory=list[float])
    adapter: int = 0
    """Parameters of the policy's adapter, which must be as many on both sides."""

    def start(self) -> None:
        """To be called when all is loaded."""
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        self._loaded = _status("VmRSS")
        self._last = _cpu()

    def update_done(self, length: float) -> None:
        now = _cpu()
        self.seconds.append(now - self._last)
        self.lengths.append(length)
        self._last = now

    def report(self) -> str:
        """A line of JSON, without the first update's time."""
        body = {
            "cpu_seconds": statistics.median(self.seconds[1:]),
            "first_update": self.seconds[0],
            "peak_mb": (_status("VmHWM") - self._loaded) / 1024,
            "length": statistics.mean(self.lengths),
            "adapter": self.adapter,
        }
        return json.dumps(body)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(name: str) -> int:
    """Kilobytes, from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}: this benchmark needs Linux")


def prompts_of(case: Case) -> list[list[int]]:
    """The same prompts for both sides."""
    import torch

    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(PROMPT_TOKENS[0], PROMPT_TOKENS[1] + 1, (case.prompts,), generator=generator)
    lengths[0] = PROMPT_TOKENS[1]
    return [torch.randint(3, case.vocabulary, (int(n),), generator=generator).tolist() for n in lengths]


def ours(case: Case) -> str:
    """One LoRA policy with a value head; reference and reward features from the same trunk."""
    import torch

    from trainer.adapters.policies import LoraSettings, attach_policy, load_base
    from trainer.core.ppo import improve
    from trainer.core.ppo_config import PPOConfig
    from trainer.core.rollout import SamplingConfig

    torch.manual_seed(0)
    critic = "separate" if case.critic == "separate" else "shared"
    lora = LoraSettings(LORA["r"], LORA["lora_alpha"], tuple(LORA["target_modules"]), top_share=0.5)
    policy = attach_policy(load_base(case.folder, dtype=case.dtype, device="cpu"), lora, critic=critic)
    direction_F = torch.randn(2 * policy.lm.width) / 16
    config = PPOConfig(
        iterations=case.updates,
        prompts_per_iteration=case.prompts,
        answers_per_prompt=1,
        critic=critic,
        sampling=SamplingConfig(max_new_tokens=case.new_tokens, temperature=1.0),
        epochs=case.epochs,
        minibatches=1,
        learning_rate=1e-5,
        value_learning_rate=1e-5,
        max_update_kl=1e9,
        kl_budget=1e9,
        closing_prompts=0,
    )
    meter = Meter(adapter=sum(p.numel() for p in policy.adapter_parameters()))
    meter.start()
    improve(
        policy,
        lambda features_NF: features_NF @ direction_F,
        prompts_of(case),
        config,
        seed=0,
        on_step=lambda step: meter.update_done(step.length),
    )
    return meter.report()


def trl(case: Case) -> str:
    """PPOTrainer of TRL 1.12: LoRA policy, the reference by adapter off, and value and reward models of their own."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import torch
    from datasets import Dataset  # pyright: ignore
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
        set_seed,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # pyright: ignore

    meter, lengths = Meter(), list[float]()

    class Clock(TrainerCallback):  # pyright: ignore[reportUntypedBaseClass]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.update_done(lengths.pop())

    _watch_lengths(ppo_trainer, lengths)
    set_seed(0)
    dtype = getattr(torch, case.dtype)
    tokenizer = AutoTokenizer.from_pretrained(case.folder)
    lora = LoraConfig(**LORA, layers_to_transform=TOP_LAYERS)
    policy = AutoModelForCausalLM.from_pretrained(case.folder, dtype=dtype)
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(case.folder, dtype=dtype, num_labels=1) for _ in range(2)
    )
    inject_adapter_in_model(lora, value)
    value.score.requires_grad_(True)
    prompts = Dataset.from_dict({"input_ids": prompts_of(case)})
    arguments = PPOConfig(
        output_dir=str(Path(case.folder) / "trl"),
        per_device_train_batch_size=case.prompts,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=case.epochs,
        total_episodes=case.prompts * case.updates,
        response_length=case.new_tokens,
        temperature=1.0,
        stop_token="eos",  # noqa: S106 - no password
        missing_eos_penalty=0.5,
        learning_rate=1e-5,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=prompts,
        eval_dataset=prompts,
        peft_config=LoraConfig(**LORA, layers_to_transform=TOP_LAYERS, task_type="CAUSAL_LM"),
        callbacks=[Clock()],
    )
    adapted = (p for name, p in trainer.policy_model.named_parameters() if "lora_" in name)
    meter.adapter = sum(p.numel() for p in adapted)
    meter.start()
    trainer.train()
    return meter.report()


def _watch_lengths(module: Any, lengths: list[float]) -> None:
    """Note the mean length of the answers where TRL cuts them at EOS."""
    cut = module.truncate_response

    def watched(stop: int, pad: int, responses: Any) -> Any:
        answers = cut(stop, pad, responses)
        lengths.append(float((answers != pad).sum(1).float().mean()))
        return answers

    module.truncate_response = watched


if __name__ == "__main__":
    side = {"ours": ours, "trl": trl}[sys.argv[1]]
    print(side(Case(**json.loads(sys.argv[2]))))
