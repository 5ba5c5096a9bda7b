"""Kafka to Delta: ingest (bronze), refine (silver and gold), agents (live)."""
