"""What `POST /v1/feedback` is measured against: an ASGI handler that hands the body to the broker and no more.

    python -m benchmarks.bare_app PORT BOOTSTRAP_SERVERS TOPIC

The same server, parser and producer settings as the gateway; no routing, no checks, no events, no log, no metrics.
"""

import asyncio
import contextlib
import sys
import threading
from typing import Any

import uvicorn
from confluent_kafka import KafkaError, Message, Producer


class Bare:
    """201 once the broker has acknowledged the body."""

    def __init__(self, servers: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer({
            "bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
            "message.timeout.ms": 5000, "queue.buffering.max.messages": 20_000, "socket.keepalive.enable": True,
        })  # fmt: skip
        threading.Thread(target=self._poll, daemon=True).start()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def delivered(error: KafkaError | None, _: Message) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, done, error)

        self._producer.produce(self._topic, body, on_delivery=delivered)
        await done
        answer = b'{"status":"recorded"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _poll(self) -> None:
        while True:
            self._producer.poll(0.1)


def _settle(done: "asyncio.Future[None]", error: KafkaError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(RuntimeError(error.str()))


def main(port: str, servers: str, topic: str) -> None:
    """Serve until the process is ended."""
    uvicorn.run(
        Bare(servers, topic), port=int(port), http="h11", lifespan="off", ws="none", log_config=None, access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
