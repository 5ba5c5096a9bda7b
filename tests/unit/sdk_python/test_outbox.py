"""The outbox under any sequence of outcomes: each event's fate is told once, and nothing overtakes without reason."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thumbwheel_client import Feedback, Kind, Receipt, Status
from thumbwheel_client.outbox import Bounds, Outbox
from thumbwheel_client.outcomes import Alone, Outcome, Recorded, Rejected, Retry
from thumbwheel_client.retry import Backoff
from thumbwheel_client.spool import Spool
from thumbwheel_client.throttle import Throttle

ANSWER = "chatcmpl-" + "0" * 32
OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [Recorded(), Recorded(), Rejected("no"), Retry("down"), Retry("broke", service=False), Alone()]
)


def event(n: int, *, at: float = 4e9) -> Feedback:
    return Feedback(response_id=ANSWER, kind=Kind.COMMENT, text=str(n), id=f"id-{n}", at=at)


def together(events: object) -> int:
    return 4


def put(outbox: Outbox, n: int) -> Receipt:
    made = event(n)
    return outbox.put(made, Receipt(made.id, made.response_id))


@pytest.mark.parametrize("spooled", [False, True])
@given(outcomes=st.lists(OUTCOMES, max_size=120), count=st.integers(1, 25))
@settings(deadline=None, max_examples=40)
def test_every_event_gets_one_fate_whatever_the_outcomes(spooled: bool, outcomes: list[Outcome], count: int) -> None:
    with tempfile.TemporaryDirectory() as where:
        spool = Spool(Path(where), max_bytes=1 << 20) if spooled else None
        outbox = Outbox(bounds=Bounds(), spool=spool, chance=lambda: 0.0)
        receipts = [put(outbox, n) for n in range(count)]
        script, recorded, rejected = list(outcomes), [], []
        while batch := outbox.take(together):
            alone = len(batch) == 1
            fates = [script.pop() if script else Recorded() for _ in batch]
            fates = [Recorded() if alone and isinstance(fate, Alone) else fate for fate in fates]
            recorded += [w.event.id for w, fate in zip(batch, fates, strict=True) if isinstance(fate, Recorded)]
            rejected += [w.event.id for w, fate in zip(batch, fates, strict=True) if isinstance(fate, Rejected)]
            outbox.absorb(batch, fates)
        assert outbox.waiting == 0
        assert len(set(recorded)) == len(recorded)
        assert set(recorded).isdisjoint(rejected)
        given_up = count - len(recorded) - len(rejected)
        stats = outbox.snapshot()
        assert (stats.recorded, stats.rejected, stats.waiting) == (len(recorded), len(rejected) + given_up, 0)
        by_status = {r.id for r in receipts if r.status is Status.RECORDED}
        assert by_status == set(recorded)
        assert all(receipt.done for receipt in receipts)
        outbox.close()
        assert list(Path(where).iterdir()) == []


def test_what_waits_too_long_is_dropped_by_its_age(tmp_path: Path) -> None:
    outbox = Outbox(bounds=Bounds(max_age=60.0), spool=Spool(tmp_path, max_bytes=1 << 20))
    old, new = event(1, at=0.0), event(2)
    receipts = [outbox.put(made, Receipt(made.id, ANSWER)) for made in (old, new)]
    assert [w.event.id for w in outbox.take(together)] == ["id-2"]
    assert (receipts[0].status, outbox.stats.dropped) == (Status.DROPPED, 1)
    outbox.close()


def test_the_wait_grows_with_failures_and_ends_with_a_success() -> None:
    outbox = Outbox(bounds=Bounds(), backoff=Backoff(first=1.0, longest=8.0), chance=lambda: 0.5)
    put(outbox, 1)
    batch = outbox.take(together)
    assert [outbox.absorb(batch, [Retry("down")]) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 4.0]
    assert outbox.absorb(batch, [Retry("busy", after=30.0)]) == 30.0
    assert outbox.absorb(batch, [Recorded()]) == 0.0
    put(outbox, 2)
    assert outbox.absorb(outbox.take(together), [Retry("down")]) == 0.5


def test_an_outage_is_never_blamed_on_an_event() -> None:
    outbox = Outbox(bounds=Bounds(), chance=lambda: 0.0)
    receipt = put(outbox, 1)
    for _ in range(100):
        outbox.absorb(outbox.take(together), [Retry("down")])
    assert receipt.status is Status.WAITING


def test_memory_is_bounded_in_bytes_too() -> None:
    outbox = Outbox(bounds=Bounds(max_bytes=400))
    receipts = [put(outbox, n) for n in range(5)]
    statuses = [receipt.status for receipt in receipts]
    assert Status.DROPPED in statuses
    assert statuses == sorted(statuses, key=lambda s: s is Status.DROPPED)
    while batch := outbox.take(together):
        outbox.absorb(batch, [Recorded()] * len(batch))
    assert put(outbox, 9).status is Status.WAITING


def test_a_full_disk_moves_events_to_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class FullDisk(Spool):
        def append(self, body: bytes) -> list[bytes]:
            raise OSError(28, "No space left on device")

    outbox = Outbox(bounds=Bounds(), spool=FullDisk(tmp_path, max_bytes=1 << 20))
    put(outbox, 1)
    assert [w.event.id for w in outbox.take(together)] == ["id-1"]
    assert "events wait in memory" in caplog.text
    assert not outbox.spools
    outbox.close()


def test_a_spool_line_of_another_kind_is_dropped_and_does_not_stop_the_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append(b'{"type":"hologram"}')
    outbox = Outbox(bounds=Bounds(), spool=spool)
    put(outbox, 1)
    spool.append(b"[]")
    put(outbox, 2)
    seen = []
    while batch := outbox.take(together):
        seen += [w.event.id for w in batch]
        outbox.absorb(batch, [Recorded()] * len(batch))
    assert seen == ["id-1", "id-2"]
    assert outbox.stats.dropped == 2
    outbox.close()


def test_the_log_is_throttled_by_cause() -> None:
    now = [0.0]
    throttle = Throttle(60.0, clock=lambda: now[0])
    assert [throttle.allows("a"), throttle.allows("a"), throttle.allows("b")] == [True, False, True]
    now[0] = 61.0
    assert throttle.allows("a")
