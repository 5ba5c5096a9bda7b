"""One member of a group, what its subscription says, and how both are written down."""

import base64
import math
import struct
from dataclasses import dataclass, field
from typing import TypedDict

from infra.broker.group_messages import DescribedMember, JoinedMember, JoinRequest, Protocol

CONSUMER = "consumer"
NEVER = math.inf
SHORTEST_REBALANCE = 0.1  # so that a time-out of 0 can't keep the timers busy
_LENGTH, _COUNT = struct.Struct(">h"), struct.Struct(">i")


class StoredMember(TypedDict):
    """A member in the JSON of a group's snapshot."""

    id: str
    instance: str | None
    client: str
    host: str
    session: float
    rebalance: float
    protocols: list[tuple[str, str]]
    assignment: str


@dataclass(slots=True)
class Member:
    """A member. A waiter is whatever the caller gave as the place for an answer that has to wait."""

    id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout: float
    rebalance_timeout: float
    protocols: tuple[Protocol, ...]
    assignment: bytes = b""
    join_waiter: object | None = None
    sync_waiter: object | None = None
    is_new: bool = False
    """In its first join: nobody may know its id yet, so it can't prove that it lives."""
    deadline: float = field(default=NEVER)

    @classmethod
    def from_request(cls, id: str, request: JoinRequest) -> "Member":
        member = cls(id, request.instance_id, request.client_id, request.client_host, 0, 0, ())
        member.update(request)
        return member

    def update(self, request: JoinRequest) -> None:
        """What a later join may change."""
        self.protocols, self.session_timeout = request.protocols, request.session_timeout
        asked = request.rebalance_timeout if request.rebalance_timeout >= 0 else request.session_timeout
        self.rebalance_timeout = max(asked, SHORTEST_REBALANCE)
        self.client_id, self.client_host = request.client_id, request.client_host

    def names(self) -> list[str]:
        return [protocol.name for protocol in self.protocols]

    def metadata(self, protocol: str | None) -> bytes:
        return next((p.metadata for p in self.protocols if p.name == protocol), b"")

    @property
    def waits(self) -> bool:
        """Whether it is the broker's turn, so that the member need not send heartbeats."""
        return self.sync_waiter is not None or (self.join_waiter is not None and not self.is_new)

    def heard(self, now: float) -> None:
        """It lives: its session starts anew."""
        self.deadline = now + self.session_timeout

    def joined(self, protocol: str | None) -> JoinedMember:
        return JoinedMember(self.id, self.instance_id, self.metadata(protocol))

    def described(self, protocol: str | None) -> DescribedMember:
        metadata = self.metadata(protocol)
        return DescribedMember(self.id, self.instance_id, self.client_id, self.client_host, metadata, self.assignment)

    def stored(self) -> StoredMember:
        return {
            "id": self.id,
            "instance": self.instance_id,
            "client": self.client_id,
            "host": self.client_host,
            "session": self.session_timeout,
            "rebalance": self.rebalance_timeout,
            "protocols": [(p.name, _text(p.metadata)) for p in self.protocols],
            "assignment": _text(self.assignment),
        }

    @classmethod
    def from_stored(cls, stored: StoredMember) -> "Member":
        protocols = tuple(Protocol(name, base64.b64decode(metadata)) for name, metadata in stored["protocols"])
        return cls(
            stored["id"],
            stored["instance"],
            stored["client"],
            stored["host"],
            stored["session"],
            stored["rebalance"],
            protocols,
            base64.b64decode(stored["assignment"]),
        )


def subscribed_topics(metadata: bytes) -> frozenset[str] | None:
    """The topics of a consumer's subscription (every version starts with version and topics), None if it is another."""
    try:
        (count,) = _COUNT.unpack_from(metadata, _LENGTH.size)
        at = _LENGTH.size + _COUNT.size
        topics: set[str] = set()
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(metadata, at)
            at += _LENGTH.size + length
            if length < 0 or at > len(metadata):
                return None
            topics.add(metadata[at - length : at].decode())
    except (struct.error, UnicodeDecodeError):
        return None
    return frozenset(topics)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
