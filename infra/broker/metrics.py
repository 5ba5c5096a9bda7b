"""What a broker counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class BrokerMetrics:
    """All counters, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("thumbwheel_broker_requests", "Requests answered, by API", ["api"], registry=registry)
        self.connections = Gauge("thumbwheel_broker_connections", "Open connections", registry=registry)
        self.refused = Counter(
            "thumbwheel_broker_refused_frames", "Connections closed for what they sent", registry=registry
        )
        self.produced = Counter("thumbwheel_broker_produced_bytes", "Bytes of batches appended", registry=registry)
        self.fetched = Counter("thumbwheel_broker_fetched_bytes", "Bytes of batches read", registry=registry)
        self.ack_seconds = Histogram(
            "thumbwheel_broker_ack_seconds", "From a produce request to its durability", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.stored = Gauge("thumbwheel_broker_stored_bytes", "Bytes of all partitions on disk", registry=registry)
        self.storage_errors = Counter(
            "thumbwheel_broker_storage_errors", "Writes and syncs that the disk refused", registry=registry
        )
