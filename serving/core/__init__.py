"""What is decided: routing, batching, sampling, the wire format, the rollout. No clock, no network, no disk."""
