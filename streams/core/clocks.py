"""When an event counts as having happened: producers' clocks can be wrong, and ours is the bound."""

from datetime import datetime


def happened_at(event_time: datetime, ingested_at: datetime) -> datetime:
    """The earlier of what the event says and of when ingest took it in: nothing is seen before it has happened.

    A producer whose clock runs ahead would otherwise have the last word for as long: its thumbs would replace those
    that users gave after them, and no withdrawal would be late enough. A clock that is behind can't be told from an
    event that has waited, and is believed.

    Both times are in the bronze row, which stays as it came, so a rebuild comes to the same. (What such a producer
    sends while ingest is behind gets one time; its own order is kept, see `evidence.in_order`, and its pace is lost.)
    """
    return min(event_time, ingested_at)
