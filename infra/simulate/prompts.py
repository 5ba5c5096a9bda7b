"""The prompts of simulated users: written for this purpose, one a line in `prompts.txt`, in four sections.

Every fourth prompt is held out: no simulated user ever asks it, and the versions are compared on those alone.
The split is by position, so that it is the same in every run, and each section has its share in both parts.
"""

from functools import cache
from pathlib import Path

from schemas.messages import ChatMessage

HOLD_OUT_EVERY = 4


@cache
def everything() -> tuple[str, ...]:
    """All prompts, in the order of the file."""
    lines = Path(__file__).with_name("prompts.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def traffic() -> tuple[str, ...]:
    """What simulated users ask."""
    return tuple(p for i, p in enumerate(everything()) if i % HOLD_OUT_EVERY != HOLD_OUT_EVERY - 1)


def held_out() -> tuple[str, ...]:
    """What only the evaluation asks."""
    return everything()[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY]


def as_messages(prompt: str, instruction: str | None = None) -> tuple[ChatMessage, ...]:
    """The prompt as the conversation that an app sends: one turn, after the app's instruction where it has one."""
    system = (ChatMessage(role="system", content=instruction),) if instruction else ()
    return (*system, ChatMessage(role="user", content=prompt))
