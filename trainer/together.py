"""A cycle's learning in several processes: the same steps in all of them, on what process 0 has read and decided.

    process 0   reads the tables, holds the lease, ─► job: rows, configuration, parent ─► the others
                saves results, reports, registers  ─► each result of a step as its bytes ─► the others

Each process loads the base. Every result that is kept in `Checkpoints` is made by all and then taken from process 0,
so that none goes on from other bits; one that is resumed, is resumed by all. PPO, answers to compare, probes and
features of labels are shared (see `trainer.core.parallel`); fitting, DPO and KTO are done alike in every process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast

from trainer.adapters.checkpoints import Checkpoints
from trainer.adapters.cycles import CycleFolder
from trainer.adapters.feature_cache import FeatureCache
from trainer.adapters.lake import Pinned
from trainer.adapters.policies import LanguageModel
from trainer.adapters.processes import Processes
from trainer.adapters.rewards import ExtraReward, same_reward
from trainer.adapters.sharding import shard
from trainer.adapters.trees import from_bytes, to_bytes
from trainer.adapters.vllm import elsewhere
from trainer.core.budget import Budget
from trainer.core.generation import Drawing
from trainer.core.parallel import Peers
from trainer.learning import Learned, learn
from trainer.reward_trunks import ParentTrunk
from trainer.settings import CycleConfig, TrainerSettings
from trainer.stages import Stages

T = TypeVar("T")
ENDLESS = Budget(max_seconds=1e12, max_tokens=10**15)
"""Of the processes that help: what a cycle may use is counted by process 0."""


@dataclass(frozen=True)
class Job:
    """What the others need to know; the parent's folder must be one that they can read too."""

    pinned: Pinned
    config: CycleConfig
    parent: str | None


class Learn(Protocol):
    """See `trainer.learning.learn`."""

    def __call__(
        self,
        lm: LanguageModel,
        pinned: Pinned,
        config: CycleConfig,
        parent_dir: Path | None,
        stages: Stages,
        folder: CycleFolder | None = None,
        keep: Checkpoints | None = None,
        extra: ExtraReward | None = None,
        *,
        trunk: ParentTrunk | None = None,
        cache: FeatureCache | None = None,
        drawing: Drawing | None = None,
    ) -> Learned: ...


def leading(processes: Processes | None) -> Learn:
    """How process 0 learns: with the others, or alone."""
    if processes is None:
        return learn

    def together(
        lm: LanguageModel,
        pinned: Pinned,
        config: CycleConfig,
        parent_dir: Path | None,
        stages: Stages,
        folder: CycleFolder | None = None,
        keep: Checkpoints | None = None,
        extra: ExtraReward | None = None,
        *,
        trunk: ParentTrunk | None = None,
        cache: FeatureCache | None = None,
        drawing: Drawing | None = None,
    ) -> Learned:
        job = Job(pinned, config, None if parent_dir is None else str(parent_dir.resolve()))
        with processes.job(to_bytes(job)) as peers:
            _cut_up(lm, config)
            shared = SharedCheckpoints(keep or Checkpoints(None), peers)
            return learn(
                lm,
                pinned,
                config,
                parent_dir,
                stages,
                folder,
                shared,
                extra,
                trunk=trunk,
                cache=cache,
                peers=peers,
                drawing=drawing,
            )

    return together


def help_out(
    processes: Processes,
    settings: TrainerSettings,
    load_base: Callable[[], LanguageModel],
    stop: Callable[[], bool],
) -> None:
    """Be one of the other processes, until process 0 ends."""

    def work(peers: Peers, told: bytes) -> None:
        job = cast("Job", from_bytes(told))
        stages = Stages(f"process-{peers.rank}", budget=ENDLESS, device=job.config.device)
        lm = load_base()
        _cut_up(lm, job.config)
        learn(
            lm,
            job.pinned,
            job.config,
            None if job.parent is None else Path(job.parent),
            stages,
            None,
            SharedCheckpoints(Checkpoints(None), peers),
            same_reward(settings, job.config.extra_reward),
            peers=peers,
            drawing=None if job.config.generation is None else elsewhere,
        )

    processes.follow(work, stop)


def _cut_up(lm: LanguageModel, config: CycleConfig) -> None:
    if config.shard == "full":
        shard(lm)


class SharedCheckpoints(Checkpoints):
    """Process 0's checkpoints, and in the others what it says of them."""

    def __init__(self, keep: Checkpoints, peers: Peers) -> None:
        super().__init__(None)
        self._keep, self._peers = keep, peers
        self.live = keep.live

    def result(self, name: str, make: Callable[[], T]) -> T:
        """What process 0 had kept, or what it has made while the others made theirs."""
        found = cast("T | None", self.load(name))
        if found is None:
            made = make()
            self.save(name, made)
            found = cast(T, self._told(lambda: made))
        return found

    def load(self, name: str) -> object | None:
        return self._told(lambda: self._keep.load(name))

    def save(self, name: str, value: object) -> bool:
        return self._peers.rank == 0 and self._keep.save(name, value)

    def save_now_and_then(self, name: str, value: object) -> None:
        if self._peers.rank == 0:
            self._keep.save_now_and_then(name, value)

    def _told(self, say: Callable[[], object | None]) -> object | None:
        said: list[object | None] = []

        def data() -> bytes:
            said.append(say())
            return b"" if said[0] is None else to_bytes(said[0], self.live)

        told = self._peers.told(data)
        if said:
            return said[0]  # process 0 goes on with its own: the bits are the same
        return from_bytes(told, self.live) if told else None
