"""The keys of a request's metadata that mean something to the gateway: segment, regenerates, purposes."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from schemas.consent import EVERY_PURPOSE, Purpose, Purposes
from schemas.ids import RESPONSE_ID_PATTERN

Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
"""As OpenAI bounds it."""


def understood(metadata: dict[str, str] | None) -> dict[str, str] | None:
    """The metadata, where those of its keys that mean something to the gateway have a value that can; `ValueError`."""
    if metadata and not 1 <= len(segment_in(metadata)) <= 200:
        raise ValueError("metadata.segment must have 1 to 200 characters")
    regenerates_in(metadata)
    purposes_in(metadata)
    return metadata


def segment_in(metadata: Mapping[str, str] | None) -> str:
    """The part of the users that this request belongs to."""
    return (metadata or {}).get("segment", "default")


def regenerates_in(metadata: Mapping[str, str] | None) -> str | None:
    """The response that this answer replaces; raises `ValueError` where that is no id of one."""
    earlier = (metadata or {}).get("regenerates")
    if earlier is not None and not re.fullmatch(RESPONSE_ID_PATTERN, earlier):
        raise ValueError("metadata.regenerates must be the id of an earlier response")
    return earlier


def purposes_in(metadata: Mapping[str, str] | None) -> Purposes | None:
    """What `metadata.purposes` agrees to: a list with commas, `none`, or nothing said. Raises `ValueError`."""
    said = (metadata or {}).get("purposes")
    if said is None:
        return None
    names = {name.strip() for name in said.split(",")}
    if names == {"none"}:
        return ()
    if not names <= set(Purpose):
        raise ValueError("metadata.purposes must be a list of training and labeling, with a comma between, or none")
    return in_order(Purpose(name) for name in names)


def in_order(purposes: Iterable[Purpose]) -> Purposes:
    """Each purpose once, in the order of their definition."""
    given = set(purposes)
    return tuple(purpose for purpose in EVERY_PURPOSE if purpose in given)
