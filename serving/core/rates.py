"""Rate limits as token buckets, in the form that keeps one number a caller (GCRA, ITU-T I.371).

Instead of a bucket's level it keeps the moment at which the bucket will be full again. Each request moves that moment
on by its share of a minute; a request that would move it more than a minute ahead is refused. So a caller may spend
a minute's worth at once, and then goes at the rate.
"""

import ipaddress
from collections import OrderedDict

MINUTE = 60.0


class Rates:
    """The buckets of at most `max_callers` callers; beyond that who was quiet the longest is forgotten.

    Forgetting forgives: a quiet caller's bucket is full, or nearly. For one thread.
    """

    def __init__(self, max_callers: int = 50_000) -> None:
        self._max_callers = max_callers
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, caller: str, *, per_minute: int, now: float, cost: int = 1) -> float:
        """0 where the request may pass, and it is counted; else the seconds after which it could.

        `now` is in seconds of any steady clock. A cost beyond a whole minute's worth counts as that.
        """
        share = MINUTE / per_minute * min(cost, per_minute)
        full_at = max(self._full_at.get(caller, now), now) + share
        wait = full_at - now - MINUTE
        if wait > 1e-6:  # sums of shares are not exact
            return wait
        self._full_at[caller] = full_at
        self._full_at.move_to_end(caller)
        if len(self._full_at) > self._max_callers:
            self._full_at.popitem(last=False)
        return 0.0


def network_of(address: str) -> str:
    """What counts as one caller: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
