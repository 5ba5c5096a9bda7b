"""What the trainer tells Prometheus. One object a process, made at its start; no ids in labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server


class Metrics:
    """Counters and gauges of the trainer, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.cycles = Counter("thumbwheel_cycles", "Update cycles that ended", ["outcome"], registry=self.registry)
        self.stage_seconds = Counter(
            "thumbwheel_cycle_stage_seconds", "Time spent in each stage of cycles", ["stage"], registry=self.registry
        )
        self.tokens = Counter("thumbwheel_cycle_tokens", "Tokens of cycles", ["kind"], registry=self.registry)
        self.running = Gauge("thumbwheel_cycle_running", "1 while a cycle runs", registry=self.registry)
        self.reward = Gauge("thumbwheel_policy_reward", "Normalized reward of the last step", registry=self.registry)
        self.kl = Gauge("thumbwheel_policy_kl_nats", "KL to the base of the last step", registry=self.registry)
        self.waiting = Gauge(
            "thumbwheel_new_preferences",
            "Effective number of labels that no cycle has seen",
            registry=self.registry,
        )
        self.month = Gauge(
            "thumbwheel_month_budget_used", "Share of the month's budget", ["limit"], registry=self.registry
        )
        self.answers_read = Counter(
            "thumbwheel_featurized_answers",
            "Answers whose features a cycle needed: read by the base, or kept from before",
            ["source"],
            registry=self.registry,
        )
        self.scored = Counter("thumbwheel_scored_answers", "Production answers scored", registry=self.registry)

    def serve(self, port: int) -> None:
        """Answer /metrics on 127.0.0.1; a port of 0 means off."""
        if port:
            start_http_server(port, addr="127.0.0.1", registry=self.registry)
