"""Runs a command that must not outlive the process that started it.

    python tether.py PARENT_PID COMMAND [ARGUMENT ...]

A supervisor that is killed can stop nobody. So each child asks the kernel to send it SIGTERM when its parent dies
(`prctl(PR_SET_PDEATHSIG)`, Linux), checks that the parent has not died before the request, and becomes the command. It
is done here and not in a `preexec_fn`, which is not safe in a process with threads. Elsewhere than on Linux it only
runs the command.

The kernel means the parent *thread*: start tethered children from one that lives as long as they may.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the command; ends with 143 where the parent is gone already."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)  # noqa: S606


def tethered(command: list[str]) -> list[str]:
    """The command line that runs `command` tethered to this process."""
    return [sys.executable, "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    main(sys.argv[1:])
