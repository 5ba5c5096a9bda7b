"""The gateway's and the controller's Prometheus metrics. No ids in labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class GatewayMetrics:
    """All that the gateway counts, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("thumbwheel_requests", "HTTP requests answered", ["route", "status"], registry=registry)
        self.duration = Histogram(
            "thumbwheel_request_duration_seconds", "From the request to the last byte", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "thumbwheel_time_to_first_token_seconds", "From the request to the first token", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.input_tokens = Counter("thumbwheel_input_tokens", "Prompt tokens read", ["version"], registry=registry)
        self.output_tokens = Counter("thumbwheel_output_tokens", "Tokens generated", ["version"], registry=registry)
        self.batch = Gauge("thumbwheel_batch_rows", "Answers being generated now", registry=registry)
        self.queue = Gauge("thumbwheel_queue_requests", "Requests waiting for a place in the batch", registry=registry)
        self.engine_errors = Counter("thumbwheel_engine_errors", "Steps of the engine that failed", registry=registry)
        self.events = Counter(
            "thumbwheel_events_sent", "Events by topic and fate: acked, failed, dropped, refused", ["topic", "fate"],
            registry=registry,
        )  # fmt: skip
        self.buffered = Gauge("thumbwheel_events_buffered", "Events waiting for the broker", registry=registry)
        self.bad_version_events = Counter(
            "thumbwheel_bad_version_events", "Messages on the version topic that are no events", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.adapter_loads = Counter(
            "thumbwheel_adapter_loads", "Adapters loaded, or not: ok, corrupt, failed", ["result"], registry=registry
        )
        self.adapters = Gauge("thumbwheel_adapters_loaded", "Adapters in memory", registry=registry)
        self.refused = Counter(
            "thumbwheel_gateway_refused", "Requests of callers without the right to them, by error code", ["code"],
            registry=registry,
        )  # fmt: skip
        self.redacted = Counter(
            "thumbwheel_gateway_redacted", "Places in texts where personal data was replaced, by kind", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.live = Info("thumbwheel_live_version", "The version that answers unpinned requests", registry=registry)


class RolloutMetrics:
    """All that the rollout controller counts."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.transitions = Counter(
            "thumbwheel_version_transitions", "Version events emitted, by new state", ["state"], registry=registry
        )
        self.bad_version_events = Counter(
            "thumbwheel_bad_version_events", "Messages on the version topic that are no events", ["reason"],
            registry=registry,
        )  # fmt: skip
