"""What each program tells Prometheus. One object a process, made at its start; no ids in labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_COMMIT_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


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

    def serve(self, port: int) -> None:
        """Answer /metrics on 127.0.0.1; a port of 0 means off."""
        if port:
            start_http_server(port, addr="127.0.0.1", registry=self.registry)
