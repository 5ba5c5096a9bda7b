"""A load of POST requests over connections that stay open, lean enough to leave the processor to the server.

    python -m benchmarks.load PORT CONNECTIONS SECONDS RATE < request      (RATE 0: as fast as it answers)

Sends one and the same request, whose bytes come from stdin, and prints one JSON object: answers a second and latencies.
At a given rate a request's latency counts from the moment at which it was due, so that a server that stalls is charged
with all the requests that it kept waiting.
"""

import asyncio
import json
import sys
import time
from collections import deque

STATUS = b"HTTP/1.1 201"
LENGTH = b"content-length: "


class Connection(asyncio.Protocol):
    """One connection; at most one request is under way on it."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._buffer = b""
        self._due = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._load.free(self)

    def ask(self, due: float) -> None:
        self._due = due
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.index(LENGTH) + len(LENGTH)
        if len(rest) < int(head[at:].partition(b"\r\n")[0]):
            return
        if not head.startswith(STATUS):
            raise SystemExit(f"the server answered: {self._buffer.decode()}")
        self._buffer = b""
        self._load.answered(time.perf_counter() - self._due)
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost += 1


class Load:
    """Gives requests to connections: at once, or when the next one is due."""

    def __init__(self, request: bytes, seconds: float, rate: float) -> None:
        self.request = request
        self.latencies = list[float]()
        self.lost = 0
        self._rate = rate
        self._begin = time.perf_counter()
        self._end = self._begin + seconds
        self._idle: deque[Connection] = deque()
        self._given = 0

    def answered(self, seconds: float) -> None:
        if time.perf_counter() < self._end:
            self.latencies.append(seconds)

    def free(self, connection: Connection) -> None:
        if self._rate:
            self._idle.append(connection)
        elif (now := time.perf_counter()) < self._end:
            connection.ask(now)

    async def pace(self) -> None:
        """Until the end: hand each request to an idle connection when it is due, or as soon after as there is one."""
        while (now := time.perf_counter()) < self._end:
            while self._rate and self._idle and self._begin + self._given / self._rate <= now:
                self._idle.popleft().ask(self._begin + self._given / self._rate)
                self._given += 1
            await asyncio.sleep(0.001)


async def run(port: int, connections: int, seconds: float, rate: float) -> dict[str, float]:
    """The figures of one load; latencies are in milliseconds."""
    loop = asyncio.get_running_loop()
    load = Load(sys.stdin.buffer.read(), seconds, rate)
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    await load.pace()
    if load.lost or not load.latencies:
        raise SystemExit(f"{load.lost} connections were lost, {len(load.latencies)} requests answered")
    ordered = sorted(load.latencies)
    return {
        "per_second": len(ordered) / seconds,
        "p50_ms": 1_000 * ordered[len(ordered) // 2],
        "p99_ms": 1_000 * ordered[len(ordered) * 99 // 100],
    }


if __name__ == "__main__":
    figures = asyncio.run(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
    sys.stdout.write(json.dumps(figures) + "\n")
