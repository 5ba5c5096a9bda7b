"""Reading answers: single keys from a terminal, lines from anything else."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator

ARROWS = {b"\x1b[D": "left", b"\x1b[C": "right", b"\x1bOD": "left", b"\x1bOC": "right"}
END_OF_INPUT = "q"


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """A terminal that gives each key at once and doesn't echo it; restored at the end. No effect on a pipe."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def read_key() -> str:
    """The next key (`left`, `right`, or a character), or the next line of a pipe; at its end `q`."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() if line else END_OF_INPUT
    raw = os.read(sys.stdin.fileno(), 1)
    if raw == b"\x1b" and select.select([sys.stdin], [], [], 0.05)[0]:
        raw += os.read(sys.stdin.fileno(), 2)
    if raw in (b"", b"\x04"):
        return END_OF_INPUT
    return ARROWS.get(raw, raw.decode(errors="replace"))
