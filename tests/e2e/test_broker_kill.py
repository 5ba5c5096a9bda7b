"""The broker under SIGKILL, at a small size; `python -m tests.e2e.broker_kill --kills 200` is the full one."""

import pytest

from tests.e2e.broker_kill import Verdict, torture
from tests.e2e.broker_ledger import IDEMPOTENT, PARTITIONS, UNSEEN, Ledger, check_order, identity, reckon

KILLS = 8


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    return torture(tmp_path_factory.mktemp("kill"), kills=KILLS, seed=8)


def test_every_promise_is_kept_when_the_broker_is_killed_under_load(verdict: Verdict) -> None:
    assert verdict.faults == {}, str(verdict)


def test_there_was_load_between_the_kills(verdict: Verdict) -> None:
    assert verdict.records_acknowledged > 200 * KILLS
    assert verdict.commits_acknowledged > KILLS


def logs(*names: int) -> list[dict[int, int]]:
    return [dict(enumerate(names)), *({} for _ in range(PARTITIONS - 1))]


def test_the_reckoning_sees_an_acknowledged_record_that_is_gone() -> None:
    ledger = Ledger()
    ledger.acknowledge(0, 0, identity(0, 0))
    ledger.acknowledge(0, 1, identity(0, 1))
    assert reckon(logs(identity(0, 0)), ledger) == 1
    assert dict(ledger.faults) == {"lost": 1}


def test_the_reckoning_sees_an_offset_that_holds_something_else_than_was_seen() -> None:
    ledger = Ledger()
    ledger.seen[0].extend([identity(0, 0), UNSEEN, identity(0, 7)])
    reckon(logs(identity(0, 0), identity(0, 1), identity(0, 2)), ledger)
    assert dict(ledger.faults) == {"reused": 1}


def test_the_reckoning_sees_a_wrong_order_and_a_double_of_an_idempotent_producer() -> None:
    ledger = Ledger()
    check_order(0, logs(identity(0, 0), identity(0, 2), identity(0, 1), identity(1, 0), identity(1, 0))[0], ledger)
    assert dict(ledger.faults) == {"reordered": 2}


def test_the_reckoning_allows_a_plain_producer_to_send_again() -> None:
    ledger, plain = Ledger(), IDEMPOTENT * PARTITIONS
    check_order(0, logs(identity(plain, 0), identity(plain, 1), identity(plain, 0), identity(plain, 1))[0], ledger)
    assert dict(ledger.faults) == {}


def test_the_reckoning_sees_a_commit_that_moved_backwards() -> None:
    ledger = Ledger()
    ledger.committed(0, 10, floor=0)
    ledger.committed(0, 9, floor=10)
    assert dict(ledger.faults) == {"backwards": 1}
