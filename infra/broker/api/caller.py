"""Who sent a request, and in which version."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A client as its connection and the header of its request name it."""

    client_id: str
    host: str
    version: int
