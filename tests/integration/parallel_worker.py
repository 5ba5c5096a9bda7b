"""Trainings in two and three processes (gloo, forks of this one), and the same in one: what each came to, for a test.

python -m tests.integration.parallel_worker FOLDER    writes FOLDER/<name>-<kind>-<rank>.pt

Forks, because importing costs more than all of the trainings.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from schemas import logs
from schemas.errors import PeerFailed
from tests.integration import trainer_lake as lake
from tests.integration.cycle_worker import Deadly
from tests.unit.trainer.core.language import policy
from trainer import app
from trainer.adapters.feature_cache import FeatureCache
from trainer.adapters.policies import LoraSettings, load_base
from trainer.adapters.processes import Processes
from trainer.adapters.sharding import shard
from trainer.core.overseers import Demonstration, Overseers
from trainer.core.parallel import ALONE, Peers
from trainer.core.parents import Parent
from trainer.core.ppo import improve
from trainer.core.ppo_config import PPOConfig
from trainer.core.rollout import SamplingConfig
from trainer.cycle import CycleRunner
from trainer.features import AnswerKey, featurize
from trainer.settings import Limits, TrainerSettings

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [4, 4, 4], [12, 13, 14, 15], [3, 9]]
WATCHED = PPOConfig(
    iterations=3,
    prompts_per_iteration=3,
    answers_per_prompt=5,
    sampling=SamplingConfig(max_new_tokens=8, temperature=0.9),
    epochs=2,
    minibatches=3,
    learning_rate=1e-2,
    kl_budget=0.2,
    hard_stop=1e9,
    max_update_kl=0.3,
    ptx_coefficient=0.1,
    ptx_batch=3,
    closing_prompts=0,
    patience=0,
    micro_batch_tokens=40,
)
"""15 answers, which neither two nor three processes share evenly; a KL budget that makes a multiplier grow."""
CONFIGS: Mapping[str, PPOConfig] = {
    "shared": WATCHED,
    "separate": replace(WATCHED, critic="separate", iterations=2),
    "rloo": replace(WATCHED, critic="none", iterations=2, closing_prompts=2),
    "one-answer": replace(WATCHED, answers_per_prompt=1, iterations=2, ptx_batch=1),  # steps with nothing for some
}
SIZES: Mapping[str, int] = {"2": 2, "3": 3, "cut": 2}
"""Processes of a kind of run; those of "cut" hold the base in parts."""
RUNS = (
    *((name, "2") for name in CONFIGS),
    ("shared", "3"),
    *((name, "cut") for name in ("separate", "one-answer")),
)


LIMITS = Limits(prompt_tokens=64, answer_tokens=32)
ANSWERS: list[AnswerKey] = [
    ((("user", f"{word} please"),), f"{word} {other}")
    for n, word in enumerate(lake.WORDS)
    for other in lake.WORDS[: 1 + n % 3]
]


def reward(features_NF: torch.Tensor) -> torch.Tensor:
    return (features_NF[:, 0] * 3).clamp(-3, 3)


def trained(config: PPOConfig, peers: Peers, *, cut_up: bool = False) -> dict[str, object]:
    """One training with all that watches it; process 0 alone knows the reward."""
    made = policy(critic=config.critic, lora=LoraSettings(rank=4, alpha=8, top_share=0.5), trained=True, cut_up=cut_up)
    overseers = Overseers(
        judge=lambda features_NF: features_NF[:, 1],
        safety=lambda features_NF: features_NF[:, 2].sigmoid(),
        safety_before=0.3,
        parent=Parent(made),
        parent_length=5.0,
        parent_sameness=0.0,
        demonstrations=[Demonstration((5, 6), (7, 8, 2)), Demonstration((9,), (7, 2)), Demonstration((5, 6), (4, 2))],
    )
    given = reward if peers.rank == 0 else _unknown
    report = improve(made, given, PROMPTS, config, seed=6, overseers=overseers, peers=peers)
    parameters = [p.detach().clone() for p in (*made.adapter_parameters(), *made.value_parameters())]
    return {
        "parameters": parameters,
        "steps": [asdict(s) for s in report.steps],
        "kept": report.kept_iteration,
        "split": made.lm.split,
        "weights_here": sum(here(p) for name, p in made.lm.model.named_parameters() if "lora_" not in name),
    }


def features(peers: Peers, base: Path, folder: Path, *, cut_up: bool = False) -> dict[str, object]:
    """Answers that people gave, read once with an empty cache, and with more answers once more; process 0 has it."""
    lm = load_base(str(base), dtype="float32", device="cpu")
    if cut_up:
        shard(lm)
    cache = FeatureCache(folder, space="one", max_bytes=10**9) if peers.rank == 0 else None
    found = [
        featurize(lm, answers, LIMITS, lambda share: None, cache, peers=peers) for answers in (ANSWERS[:9], ANSWERS)
    ]
    return {
        "features": [table.features_NF for table in found],
        "read": [table.tokens for table in found],
        "kept": cache.kept if cache else None,
    }


def here(parameter: torch.Tensor) -> int:
    """Numbers of it that this process holds."""
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()


def _unknown(features_NF: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the reward is asked in process 0 alone")


def cycle(folder: Path, base: Path, processes: Processes | None, moment: str = "") -> None:
    """A whole cycle; the others help. With a `moment` process 0 is killed then; without one it goes on from there."""
    if processes is not None and processes.rank:
        app.run_helper(settings(folder, base), processes, threading.Event())
        return
    data = folder / ("data-1" if processes is None else "data-cut")
    if not data.is_dir():
        lake.fill(data)
    given = settings(data, base, shard="full")  # which says nothing to one process alone
    events = Deadly(data / "events.jsonl", moment)
    outcome = CycleRunner(given, events, load_base=app.loader(given), processes=processes).run()
    assert outcome.version == "v1", outcome
    if processes is not None:
        _failures(processes)
        processes.close()


def settings(data: Path, base: Path, **changes: Any) -> TrainerSettings:
    """Three iterations, a checkpoint after each, and little to evaluate."""
    quick = lake.settings(data, base)
    ppo = quick.ppo.model_copy(update={"iterations": 3})
    gates = quick.gates.model_copy(update={"probe_tokens": 200})
    few = {"max_held_out_prompts": 6, "score_responses": 0, "checkpoint_seconds": 0}
    return lake.settings(data, base, ppo=ppo, gates=gates, **few, **changes)


def _failures(processes: Processes) -> None:
    """What the others do with bytes that are no job: they fail, say why, and are there for the next one."""
    said: list[str] = []
    for what in (b"no job", b"nor this"):
        try:
            with processes.job(what) as group:
                group.told(lambda: 1)
                group.sum(torch.ones(1))
        except PeerFailed as error:
            said.append(str(error))
    torch.save(said, os.environ["SAID"])


def fork(size: int, work: Callable[[Processes], None], *, killed: bool = False) -> None:
    """`work` in `size` processes; raises if one of them does not end in order, unless process 0 is to be `killed`."""
    children: list[int] = []
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    for rank in range(size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
                work(Processes(store, rank, size, seconds=60.0))
                code = 0
            except BaseException:  # noqa: BLE001 - the test reads it
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    hosted = dist.TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    statuses = [os.waitpid(children[0], 0)[1]]
    if statuses[0]:  # what torchrun does then
        for child in children[1:]:
            os.kill(child, signal.SIGTERM)
    statuses += [os.waitpid(child, 0)[1] for child in children[1:]]
    del hosted  # as torchrun's does, it outlives the processes
    assert killed == any(statuses), statuses


def main() -> None:
    folder = Path(sys.argv[1])
    base = lake.tiny_base(folder / "base")
    torch.set_num_threads(1)
    logs.configure("worker", "WARNING")
    os.environ["SAID"] = str(folder / "said.pt")

    def trainings(processes: Processes) -> None:
        def work(peers: Peers, told: bytes) -> None:
            if told == b"left":
                peers.sum(torch.ones(1))  # to which process 0 does not come
            for name, kind in RUNS:
                if SIZES[kind] == peers.size:
                    made = trained(CONFIGS[name], peers, cut_up=kind == "cut")
                    torch.save(made, folder / f"{name}-{kind}-{peers.rank}.pt")
            for kind in (kind for kind, size in SIZES.items() if size == peers.size):
                read = features(peers, base, folder / f"features-{kind}", cut_up=kind == "cut")
                torch.save(read, folder / f"features-{kind}-{peers.rank}.pt")

        if processes.rank:
            processes.follow(work, lambda: False)
            return
        with contextlib.suppress(ValueError), processes.job(b"left"):
            raise ValueError("process 0 gives up, and the others are there for its next job")
        with processes.job(b"train") as group:
            work(group, b"train")
        processes.close()

    for name, config in CONFIGS.items():
        torch.save(trained(config, ALONE), folder / f"{name}-1-0.pt")
    torch.save(features(ALONE, base, folder / "features-1"), folder / "features-1-0.pt")
    for size in (2, 3):
        fork(size, trainings)
    fork(1, lambda _: cycle(folder, base, None))
    fork(2, lambda processes: cycle(folder, base, processes, "training"), killed=True)
    fork(2, lambda processes: cycle(folder, base, processes))


if __name__ == "__main__":
    main()
