"""The processes of one trainer under torchrun: process 0 is the service, the others help it with one job at a time.

    torchrun ─► process 0     lease, tables, events, registry, metrics
             └► process 1..   wait at torchrun's store for a job, do their share of it, and wait again

    a job:  a process group of its own (gloo; NCCL for tensors on GPUs), the job's bytes to all, work, group closed

What goes wrong in a job closes its group, so that nobody waits for a process that has given up: the others' calls
fail at once (on GPUs within the time limit), process 0 says why, and the next job begins with a new group. A process
that dies takes all with it: torchrun ends them. The communication is torch.distributed's, all launching torchrun's.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import PrefixStore, Store, get_node_local_rank
from torch.distributed.rendezvous import rendezvous

from schemas.errors import PeerFailed, ThumbwheelError
from trainer.adapters.trees import from_bytes, to_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")
POLL_SECONDS = 0.2
"""Between looks for the next job, which comes once in many minutes and takes minutes."""
BYTES, TREE = b"b", b"t"
"""The first byte of what is told: how to read the rest."""
BEGIN, END = "begin", "end"
LOST = "another process is gone or did not answer in time: see its log, or raise THUMBWHEEL_PEER_SECONDS"


class Group:
    """The processes of a running job; see `trainer.core.parallel.Peers`."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def sum(self, *tensors: Tensor) -> None:
        """Add each tensor up over all processes, in place: one call of `all_reduce` for each type and device."""
        for kind in dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors):
            alike = [tensor for tensor in tensors if (tensor.dtype, tensor.device) == kind]
            flat = torch.cat([tensor.detach().flatten() for tensor in alike])
            with _answering():
                dist.all_reduce(flat)
            for tensor, part in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def told(self, say: Callable[[], T]) -> T:
        """What process 0 says; the others don't call `say`.

        Bytes go as they are and values as trees: torch's own way of sending objects would unpickle what comes.
        """
        said = [say()] if self.rank == 0 else []
        data = b"".join(_written(value) for value in said)
        length = torch.tensor([len(data)])
        with _answering():
            dist.broadcast(length, src=0)
            box = torch.frombuffer(bytearray(data), dtype=torch.uint8) if said else torch.zeros(int(length)).byte()
            dist.broadcast(box, src=0)
        return said[0] if said else cast("T", _read(box.numpy().tobytes()))


def _written(value: object) -> bytes:
    return BYTES + value if isinstance(value, bytes) else TREE + to_bytes(value)


def _read(data: bytes) -> object:
    return data[1:] if data[:1] == BYTES else from_bytes(data[1:])


def largest(n: int) -> int:
    """The largest of all processes' numbers."""
    found = torch.tensor([n])
    with _answering():
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """Inside, `PeerFailed` is raised where the others don't take part."""
    try:
        yield
    except RuntimeError as error:
        raise PeerFailed(f"{LOST} ({error})") from error


class Processes:
    """This process among those that torchrun started; `seconds` is how long one waits for another within a job."""

    def __init__(self, store: Store, rank: int, size: int, *, seconds: float, backend: str = "gloo") -> None:
        self.rank, self.size = rank, size
        self._store, self._seconds, self._backend = store, seconds, backend
        self._number = 0

    @classmethod
    def launched(cls, *, seconds: float, gpus: bool) -> "Processes | None":
        """Those that torchrun started; None where it started one, or did not start this program."""
        if not dist.is_available() or not dist.is_torchelastic_launched():
            return None
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
        if size == 1:
            return None
        return cls(store, rank, size, seconds=seconds, backend="cpu:gloo,cuda:nccl" if gpus else "gloo")

    @contextlib.contextmanager
    def job(self, what: bytes) -> Iterator[Group]:
        """In process 0: give all processes a job and do it with them; raises `PeerFailed` where another one failed."""
        self._number += 1
        self._store.set(f"job/{self._number}", BEGIN)
        with self._given_up(), self._group() as group, self._given_up():
            group.told(lambda: what)
            yield group

    def follow(self, work: Callable[[Group, bytes], None], stop: Callable[[], bool]) -> None:
        """In the others: do what process 0 gives until it ends, or, while there is no job, until `stop`."""
        while self._next(stop):
            if self._store.check([self._key(0)]):
                continue  # a job that was given up while this process still hung in the one before
            with contextlib.suppress(ThumbwheelError, RuntimeError, ValueError, OSError), self._group() as group:
                self._do(work, group)

    def close(self) -> None:
        """In process 0: there is no more to come."""
        self._store.set(f"job/{self._number + 1}", END)

    @contextlib.contextmanager
    def _given_up(self) -> Iterator[None]:
        """Say that process 0 has given the job up before the others notice it by a group that is closed."""
        try:
            yield
        except Exception as error:
            if self._store.check([self._key(0)]):
                raise
            why = self._failure()
            self._store.set(self._key(0), str(error))
            if why is not None and isinstance(error, (RuntimeError, PeerFailed)):
                raise PeerFailed(why) from error
            raise

    def _do(self, work: Callable[[Group, bytes], None], group: Group) -> None:
        try:
            work(group, group.told(lambda: b""))
        except Exception as error:
            if self._store.check([self._key(0)]):
                logger.info("process 0 gave a job up", extra={"rank": self.rank})
            else:
                why = f"{type(error).__name__}: {error}"
                logger.warning("failed at a job", extra={"rank": self.rank, "error": why})
                self._store.set(self._key(self.rank), why)
            raise

    def _next(self, stop: Callable[[], bool]) -> bool:
        """Whether another job has come."""
        key = f"job/{self._number + 1}"
        while not stop():
            if not self._store.check([key]):  # and no `wait`, whose every time-out torch logs as a warning
                time.sleep(POLL_SECONDS)
                continue
            if self._store.get(key).decode() == END:
                return False
            self._number += 1
            return True
        return False

    @contextlib.contextmanager
    def _group(self) -> Iterator[Group]:
        # Its name is a count of the groups before it, and one that never came together counts where it was waited for.
        distributed_c10d._world.group_count = 0  # pyright: ignore[reportPrivateUsage]
        with _answering():
            dist.init_process_group(
                self._backend,
                store=PrefixStore(f"group/{self._number}", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=self._seconds),
            )
        try:
            yield Group(self.rank, self.size)
        finally:
            dist.destroy_process_group()

    def _failure(self) -> str | None:
        for rank in range(1, self.size):
            if self._store.check([self._key(rank)]):
                return f"process {rank} of {self.size} failed: {self._store.get(self._key(rank)).decode()}"
        return None

    def _key(self, rank: int) -> str:
        return f"failed/{self._number}/{rank}"


def local_device(wanted: str | None) -> str | None:
    """The device of this process: of several GPUs on a machine the one with its local number, where torchrun gave it.

    It becomes the one that torch takes for "cuda", so that collectives use it too.
    """
    if not dist.is_torchelastic_launched() or not torch.cuda.is_available() or wanted not in (None, "cuda"):
        return wanted
    number = get_node_local_rank(0)
    torch.cuda.set_device(number)
    return f"cuda:{number}"
