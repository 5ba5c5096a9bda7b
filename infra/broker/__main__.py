"""`python -m infra.broker`: the broker as a process of its own."""

import sys

if __name__ == "__main__":
    # kio imports this test library wherever it is installed: a fifth of a second that no broker has a use for.
    sys.modules.setdefault("hypothesis", None)  # pyright: ignore[reportArgumentType]

import argparse
import asyncio
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import start_http_server

from infra.broker.node import DataFolder, Node
from infra.broker.options import LOOPBACK, BrokerOptions
from infra.broker.server import Server
from infra.broker.upkeep import keep_up
from schemas.errors import SettingsError
from schemas.logs import configure

logger = logging.getLogger("infra.broker")
EXAMPLES = """
examples:
  python -m infra.broker --port 9092 --data .thumbwheel/broker
  python -m infra.broker --port 9092 --data /var/lib/broker --metrics-port 9308
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C; the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        options = _options(asked)
        configure("broker", asked.log_level)
        folder = DataFolder(options.data)
        asyncio.run(_serve(options))
        del folder
    except SettingsError as error:
        sys.stderr.write(f"broker: {error}\n")
        return 2
    return 0


async def _serve(options: BrokerOptions) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = Node.open(options)
    server = Server(node)
    try:
        await server.start()
        _serve_metrics(node)
        logger.info("listening", extra={"host": options.host, "port": options.port, "data": str(options.data)})
        beside = [asyncio.create_task(work) for work in (server.warm_up(), keep_up(node))]
        await stop.wait()
        logger.info("stopping")
        for task in beside:
            task.cancel()
        await server.close()
    finally:
        await node.close()


def _serve_metrics(node: Node) -> None:
    port = node.options.metrics_port
    if port:
        try:
            start_http_server(port, "127.0.0.1", registry=node.metrics.registry)
        except OSError as error:
            raise SettingsError(f"the metrics port {port} can't be used: {error.strerror}; choose another") from error


def _options(asked: argparse.Namespace) -> BrokerOptions:
    if asked.host not in LOOPBACK and not asked.without_authentication:
        raise SettingsError(
            f"--host {asked.host} lets everybody who reaches it read and write everything; "
            "add --without-authentication if that is meant, or use a Kafka cluster"
        )
    return BrokerOptions(
        data=asked.data.resolve(),
        port=asked.port,
        host=asked.host,
        auto_create_topics=asked.auto_create_topics,
        default_partitions=asked.partitions,
        initial_rebalance_delay_ms=asked.initial_rebalance_delay_ms,
        upkeep_seconds=asked.upkeep_seconds,
        metrics_port=asked.metrics_port,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.broker",
        description="A Kafka-protocol broker for one machine: what it acknowledges is on the disk.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, required=True, help="where clients connect")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="its data folder; one broker a folder")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--without-authentication",
        action="store_true",
        help="needed for any other --host: the broker knows no passwords, and whoever reaches it may do everything",
    )
    parser.add_argument("--auto-create-topics", action="store_true", help="make topics when they are first named")
    parser.add_argument(
        "--partitions", type=int, default=1, metavar="N", help="of topics made without a number (default: %(default)s)"
    )
    parser.add_argument(
        "--initial-rebalance-delay-ms",
        type=int,
        default=50,
        metavar="MS",
        help="how long the first member of a group waits for others (default: %(default)s)",
    )
    parser.add_argument(
        "--upkeep-seconds",
        type=float,
        default=2.0,
        metavar="S",
        help="between two looks at retention and compaction (default: %(default)s)",
    )
    parser.add_argument("--metrics-port", type=int, default=0, metavar="P", help="Prometheus page; 0 is off (default)")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
