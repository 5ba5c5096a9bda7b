"""Starts a program of the trainer in several processes of this machine, as torchrun would.

    this process ─► torch's elastic agent (the one of torchrun, with a store of its own)
                    ├► process 0     the program
                    └► process 1..   help it (`trainer.adapters.processes`)

A signal is passed on, and all are waited for. One that dies ends all; nothing is started again here: that is done by
whoever started this. The agent's processes lead sessions of their own, so a kill of this one does not reach them: each
looks for itself whether this one is still there.
"""

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Sequence

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between looks whether the launcher is there."""
STOP_SECONDS = 30
"""A process that was told to stop is killed after that."""


def launched() -> bool:
    """Whether this is one of several processes already, by this module or by torchrun."""
    return dist.is_available() and dist.is_torchelastic_launched()


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `python -m trainer ARGUMENTS` in so many processes.

    The exit code is 0 where all ended in order or a signal stopped them, else that of the first that failed (1 if a
    signal killed it).
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # failures are told by who failed
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=STOP_SECONDS,
    )
    safe = ["-P"] if sys.flags.safe_path else []
    try:
        elastic_launch(config, sys.executable)(*safe, "-m", "trainer", *arguments)
    except SignalException as stopped:
        logger.info("stopped", extra={"signal": signal.Signals(stopped.sigval).name})
        return 0
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode < 0 or rank:
            logger.error(f"process {rank} of {processes} ended by itself (exit code {failure.exitcode}): see its log")
        return failure.exitcode if failure.exitcode > 0 else 1
    return 0


def end_with_the_launcher() -> None:
    """End this process, without a word and as a kill would, once the one that launched it is gone."""
    launcher = os.getppid()

    def look() -> None:
        while os.getppid() == launcher:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, name="launcher", daemon=True).start()
