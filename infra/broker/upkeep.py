"""What is done beside requests: retention, compaction, offsets of groups long gone, producers long silent."""

import asyncio
import logging

from infra.broker import compaction
from infra.broker.log import PartitionLog
from infra.broker.node import Node, now_ms

logger = logging.getLogger(__name__)
PRODUCERS_MS = 24 * 3600 * 1000
"""Silence after which an idempotent producer is forgotten (Kafka: producer.id.expiration.ms)."""


async def keep_up(node: Node) -> None:
    """Goes round for ever; what fails for one partition is logged and tried again in the next round."""
    while True:
        await asyncio.sleep(node.options.upkeep_seconds)
        stored = 0
        for topic in node.topics:
            for log in topic.logs:
                await _look_after(log)
                stored += log.size_bytes
                await asyncio.sleep(0)
        node.metrics.stored.set(stored)
        await node.coordinator.expire()
        # Where the disk was full when a topic was deleted, its successor must not inherit what was committed for it.
        for name in node.coordinator.topics_with_offsets():
            if name not in node.topics:
                await node.coordinator.topic_deleted(name)


async def _look_after(log: PartitionLog) -> None:
    if log.closed:
        return
    now = now_ms()
    try:
        log.maybe_roll(now)
        log.enforce_retention(now)
        log.expire_producers(now, PRODUCERS_MS)
        if log.config.compact:
            await compaction.clean(log, now)
    # One partition's trouble (a full disk, a damaged segment) must not end the upkeep of the others.
    except Exception:
        logger.exception("upkeep of a partition failed", extra={"log": str(log.directory)})
