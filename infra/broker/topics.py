"""The topics of a broker: which there are, their settings, the logs of their partitions.

`catalogue.json` is the truth; it is replaced as a whole before a change is answered. A topic's logs lie in
`topics/<its id>/<partition>`, so that a topic that is deleted and made again never meets its former self. A folder
that the catalogue does not know is what a crash left of a deletion (or of a creation that was never answered).
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from kio.schema.errors import ErrorCode

from infra.broker import topic_settings
from infra.broker.disk import DISK, replace
from infra.broker.errors import BrokerError
from infra.broker.log import PartitionLog

NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
MAX_PARTITIONS = 10_000


@dataclass
class Topic:
    """A topic with the log of each partition."""

    name: str
    topic_id: UUID
    settings: dict[str, str]
    logs: list[PartitionLog] = field(default_factory=list)

    def log(self, partition: int) -> PartitionLog:
        """One partition's log; raises `BrokerError`."""
        if 0 <= partition < len(self.logs):
            return self.logs[partition]
        raise BrokerError(
            ErrorCode.unknown_topic_or_partition, f"{self.name} has {len(self.logs)} partitions, no number {partition}"
        )


class Topics:
    """All topics of a data folder."""

    def __init__(self, folder: Path, cluster_id: str) -> None:
        self._folder = folder
        self.cluster_id = cluster_id
        self._by_name: dict[str, Topic] = {}
        self._by_id: dict[UUID, Topic] = {}

    @classmethod
    def open(cls, folder: Path) -> "Topics":
        """Read the catalogue, recover every log, and remove what it does not know."""
        (folder / "topics").mkdir(parents=True, exist_ok=True)
        path = folder / "catalogue.json"
        found = json.loads(path.read_text()) if path.exists() else {"cluster_id": str(uuid4()), "topics": []}
        topics = cls(folder, found["cluster_id"])
        for entry in found["topics"]:
            topic = Topic(entry["name"], UUID(entry["id"]), dict(entry["settings"]))
            topics._add(topic)
            topics._open_logs(topic, entry["partitions"])
        topics._save()
        known = {topic.topic_id.hex for topic in topics}
        for left in (folder / "topics").iterdir():
            if left.name not in known:
                shutil.rmtree(left)
        return topics

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def named(self, name: str) -> Topic:
        """Raises `BrokerError` (unknown_topic_or_partition)."""
        topic = self._by_name.get(name)
        if topic is None:
            raise BrokerError(ErrorCode.unknown_topic_or_partition, f"there is no topic {name}")
        return topic

    def identified(self, topic_id: UUID | None) -> Topic:
        """Raises `BrokerError` (unknown_topic_id)."""
        topic = None if topic_id is None else self._by_id.get(topic_id)
        if topic is None:
            raise BrokerError(ErrorCode.unknown_topic_id, f"there is no topic with the id {topic_id}")
        return topic

    def create(self, name: str, partitions: int, settings: Mapping[str, str | None], *, only_check: bool) -> Topic:
        """A new topic; raises `BrokerError`. With `only_check` nothing is made."""
        if not NAME.fullmatch(name) or name in (".", ".."):
            raise BrokerError(
                ErrorCode.invalid_topic_exception,
                f"{name!r} is no topic name: 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'",
            )
        if name in self._by_name:
            raise BrokerError(ErrorCode.topic_already_exists, f"there is a topic {name} already")
        _check_count(partitions)
        topic = Topic(name, uuid4(), topic_settings.check(settings))
        if not only_check:
            self._open_logs(topic, partitions)
            self._add(topic)
            self._save()
        return topic

    def delete(self, topic: Topic) -> None:
        """Forget a topic, then remove its files."""
        del self._by_name[topic.name], self._by_id[topic.topic_id]
        self._save()
        for log in topic.logs:
            log.close(discard=True)
        shutil.rmtree(self._place(topic))

    def grow(self, topic: Topic, partitions: int, *, only_check: bool) -> None:
        """Add partitions up to a number; raises `BrokerError`."""
        _check_count(partitions)
        if partitions <= len(topic.logs):
            raise BrokerError(
                ErrorCode.invalid_partitions, f"{topic.name} has {len(topic.logs)} partitions; there can only be more"
            )
        if not only_check:
            self._open_logs(topic, partitions)
            self._save()

    def configure(self, topic: Topic, settings: Mapping[str, str | None], *, only_check: bool) -> None:
        """Replace the settings of a topic; raises `BrokerError` (invalid_config)."""
        checked = topic_settings.check(settings)
        if only_check:
            return
        topic.settings = checked
        for log in topic.logs:
            log.config = topic_settings.log_config(checked)
        self._save()

    def close(self) -> None:
        """Close every log."""
        for topic in self:
            for log in topic.logs:
                log.close()

    def _place(self, topic: Topic) -> Path:
        return self._folder / "topics" / topic.topic_id.hex

    def _add(self, topic: Topic) -> None:
        self._by_name[topic.name] = self._by_id[topic.topic_id] = topic

    def _open_logs(self, topic: Topic, partitions: int) -> None:
        config = topic_settings.log_config(topic.settings)
        for number in range(len(topic.logs), partitions):
            topic.logs.append(PartitionLog.open(self._place(topic) / str(number), config))

    def _save(self) -> None:
        entries = [
            {"name": t.name, "id": str(t.topic_id), "partitions": len(t.logs), "settings": t.settings} for t in self
        ]
        text = json.dumps({"cluster_id": self.cluster_id, "topics": entries}, indent=1)
        replace(self._folder / "catalogue.json", text.encode(), DISK)


def _check_count(partitions: int) -> None:
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise BrokerError(
            ErrorCode.invalid_partitions, f"a topic has 1 to {MAX_PARTITIONS} partitions, not {partitions}"
        )
