"""When something happened, as far as the client may say so."""

from datetime import datetime, timedelta

from serving.core.wire import RequestRefused

AHEAD = timedelta(seconds=5)
"""So far ahead of ours may a client's clock be before it is taken for wrong: clocks that are set by the network differ
by less, and two clicks of one user keep their order."""


def moment_of(occurred_at: datetime | None, now: datetime, *, oldest: timedelta) -> datetime:
    """The `time` of an event that a client says has happened at `occurred_at` (with its zone); None: now.

    Nothing can have happened in the future: a moment beyond `AHEAD` is a wrong clock's, and becomes now. What is older
    than `oldest` is refused (`RequestRefused`, for good) and not moved: put at now it would replace what the same user
    has said since, and put at the limit it would be counted at a time that nobody named. Whoever has it on purpose
    hears why, and can send it without the field. (No broken clock is silenced by this: one that is wrong by weeks
    fails at the gateway's TLS certificate before.) A clock that is behind by less is believed: one client's events
    keep their order among themselves, which matters more than their hour.
    """
    if occurred_at is None:
        return now
    age = now - occurred_at
    if age < -AHEAD:
        return now
    if age > oldest:
        raise RequestRefused(
            f"occurred_at is more than {oldest / timedelta(days=1):g} days ago, which is too long for this gateway;"
            " leave the field out for it to count from now",
            code="too_old",
            param="occurred_at",
        )
    return occurred_at
