"""A broker that loses nothing, for one machine: the smallest that keeps Kafka's promises where there is one node.

    client ─► server ─► wire ─► api/* ──┬─► topics ─► log ─► segment files    flusher: an fdatasync for all who wait
              frames    kio     handlers├─► coordinator ─► groups, offsets    upkeep: retention, compaction
                                        └─► producer_ids

It promises:
- What is acknowledged (acks 1 or all) is on the disk, and is read back in its order, whatever is killed and whenever.
- A record is visible only when it is on the disk. So an offset that anybody has ever seen is never given to another
  record, and a committed offset never moves backwards.
- Idempotent producers (KIP-98) add nothing twice and nothing out of order, over restarts too.
- Members that die are evicted after their session time-out, and their partitions go to the others.
- A full or broken disk gives an error to who wrote, and nothing else; when there is room it goes on.
- What one client sends or fails to read costs only its own connection.

It leaves out on purpose, and refuses with the protocol's own codes: more than one node (a replication factor other
than 1), transactions, access control and authentication (it binds the loopback interface), quotas, the consumer
protocol of KIP-848 (clients use the classic one), share groups, tiered storage. None is in ApiVersions, but for
DescribeAcls, which says that there is no access control. Who needs them, or a second machine, points the same processes
at a Kafka cluster (see the guide).

It is run by `python -m infra.broker --port P --data DIR`; what a folder holds:

    catalogue.json                topics, partitions, settings           topics/<id>/<partition>/<base offset>.log ...
    groups/                       committed offsets, group snapshots     producer-ids, lock
"""
