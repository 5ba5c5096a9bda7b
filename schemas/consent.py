"""What a person's content may be used for, beside giving the answer itself."""

from collections.abc import Collection
from enum import StrEnum


class Purpose(StrEnum):
    """`training`: the reward model and the policy may learn from it. `labeling`: people may be shown it to judge it."""

    TRAINING = "training"
    LABELING = "labeling"


Purposes = tuple[Purpose, ...]
"""What was agreed to; an empty tuple is a no to everything."""

EVERY_PURPOSE: Purposes = tuple(Purpose)


def permits(purposes: Collection[Purpose] | None, purpose: Purpose) -> bool:
    """Whether content may be used so. None: the event says nothing, as those written before the field existed; they
    were collected under terms that the operator answers for, and count as agreed."""
    return purposes is None or purpose in purposes
