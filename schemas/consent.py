"""What a person's content may be used for, beside giving the answer itself."""

from collections.abc import Collection, Iterable
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


def common(purposes: Iterable[Purposes | None]) -> Purposes | None:
    """What several contents together may be used for: what each was agreed to for. None where none of them says."""
    said = [given for given in purposes if given is not None]
    return tuple(p for p in EVERY_PURPOSE if all(p in given for given in said)) if said else None
