"""What each program tells Prometheus. One object a process, made at its start; no ids in labels."""

import json
import threading
from collections.abc import Callable, Collection, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

_COMMIT_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROW_BUCKETS = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


class Metrics:
    """Counters and gauges of ingest, refine and agents, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows = Counter("thumbwheel_rows_total", "Rows appended", ["table"], registry=self.registry)
        self.dead_letters = Counter(
            "thumbwheel_dead_letters_total", "Messages that were no event", ["topic", "reason"], registry=self.registry
        )
        self.duplicates = Counter(
            "thumbwheel_duplicates_total", "Events that came again", ["topic"], registry=self.registry
        )
        self.conflicts = Counter(
            "thumbwheel_conflicts_total", "Commits refused because another writer came first", registry=self.registry
        )
        self.commit_seconds = Histogram(
            "thumbwheel_commit_seconds", "Time of an append", ["table"], buckets=_COMMIT_BUCKETS, registry=self.registry
        )
        self.lag = Gauge("thumbwheel_lag_messages", "Messages in the log that are in no table", registry=self.registry)
        self.orphans = Gauge(
            "thumbwheel_orphans", "Responses with feedback whose output has not come", registry=self.registry
        )
        self.silent = Gauge(
            "thumbwheel_silent_responses", "Answers of which nothing has been said", registry=self.registry
        )
        self.discounted = Counter(
            "thumbwheel_discounted_judgements",
            "Judgements that were found to count for nothing",
            ["reason"],
            registry=self.registry,
        )
        self.annotators = Gauge(
            "thumbwheel_annotators", "Raters who have a weight of their own", registry=self.registry
        )
        self.last_round = Gauge(
            "thumbwheel_last_watermark_timestamp_seconds",
            "When a table's watermark last moved (Unix time)",
            ["table"],
            registry=self.registry,
        )
        self.round_seconds = Histogram(
            "thumbwheel_round_seconds", "Time of a refine round", buckets=_COMMIT_BUCKETS, registry=self.registry
        )
        self.thumbs = Counter("thumbwheel_thumbs", "Thumbs seen live", ["version", "kind"], registry=self.registry)
        self.outputs = Counter("thumbwheel_outputs", "Answers seen live", ["version"], registry=self.registry)

        self.batch_rows = Histogram(
            "thumbwheel_batch_rows", "Rows in a commit", ["table"], buckets=_ROW_BUCKETS, registry=self.registry
        )
        self.stalled = Gauge(
            "thumbwheel_stalled", "1 while a topic can't be stored and nothing is taken", ["topic"],
            registry=self.registry,
        )  # fmt: skip
        self.files = Gauge("thumbwheel_table_files", "Files of a table", ["table"], registry=self.registry)
        self.table_bytes = Gauge("thumbwheel_table_bytes", "Bytes of a table", ["table"], registry=self.registry)
        self.upkeep_seconds = Histogram(
            "thumbwheel_upkeep_seconds", "Time of a table's upkeep", ["table"], buckets=_COMMIT_BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self.upkeep_put_off = Counter(
            "thumbwheel_upkeep_put_off_total", "Upkeep that failed and is tried again", ["table"],
            registry=self.registry,
        )  # fmt: skip
        self.removed_files = Counter(
            "thumbwheel_removed_files_total", "Files of old versions that were removed", ["table"],
            registry=self.registry,
        )  # fmt: skip
        self._stalls: dict[str, str] = {}

    def stall(self, topic: str, why: str) -> None:
        """A topic can't be stored now."""
        self.stalled.labels(topic).set(1)
        self._stalls[topic] = why

    def only_stalled(self, topics: Collection[str]) -> None:
        """All others can be stored again."""
        for topic in self._stalls.keys() - topics:
            self.stalled.labels(topic).set(0)
            del self._stalls[topic]

    @property
    def stalls(self) -> dict[str, str]:
        """The topics that can't be stored now, and why."""
        return dict(self._stalls)

    def serve(self, port: int) -> None:
        """Answer /metrics and /ready on 127.0.0.1; a port of 0 means off."""
        if port:
            server = make_server("127.0.0.1", port, self.app, _Threads, handler_class=_Quiet)
            threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The two pages (WSGI). /ready answers 503, with the reasons, while something can't be stored."""
        if environ.get("PATH_INFO") != "/ready":
            return make_wsgi_app(self.registry)(environ, start_response)
        stalls = self.stalls
        start_response("503 Service Unavailable" if stalls else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"ready": not stalls, "stalled": stalls}).encode()]


class _Threads(ThreadingMixIn, WSGIServer):
    """One that waits for nobody's request."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Requests are no news."""

    def log_message(self, format: str, *args: Any) -> None:
        return None
