"""The two moments at which a process tells nobody: its exit, and a fork. Every courier at work hears of them here."""

import atexit
import os
import sys
import weakref
from typing import Protocol


class Mortal(Protocol):
    """Something that has to be put in order at exit and after a fork."""

    def at_exit(self) -> None: ...

    def after_fork(self) -> None: ...


_alive: "weakref.WeakSet[Mortal]" = weakref.WeakSet()
_hooked: list[bool] = []


def look_after(mortal: Mortal) -> None:
    """Have it called at exit and, in the child, after a fork, for as long as it exists."""
    if not _hooked:
        _hooked.append(True)
        atexit.register(_at_exit)
        if sys.platform != "win32":
            os.register_at_fork(after_in_child=_after_fork)
    _alive.add(mortal)


def _at_exit() -> None:
    for mortal in list(_alive):
        mortal.at_exit()


def _after_fork() -> None:
    for mortal in list(_alive):
        mortal.after_fork()
