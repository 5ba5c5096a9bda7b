"""An erasure beside a rebuild, beside refine, beside another erasure: in whichever order, no erased row comes back."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from infra.provenance import erase as erasing
from infra.provenance import renewal
from infra.provenance.erase import Erased, erase, unfinished
from infra.provenance.footprint import footprint
from infra.provenance.sources import Sources
from schemas import tables
from schemas.envelope import Event
from schemas.errors import TableConflict
from streams.adapters.lake import LakeTable
from streams.comparison import Silver
from streams.metrics import Metrics
from streams.rebuild import REBUILT
from streams.refine import Refine
from tests.integration.streams_kit import ROOT, Kit, event, feedback, output
from tests.integration.test_rebuild import Bronze, check, label, mend, rounds
from tests.integration.test_trace_and_erase import where_it_stands

SECRET, BOBS = "the-orchid-opens-at-nine", "my-cat-is-called-otto"
DERIVED = [table.name for table in REBUILT]


@pytest.fixture
def kit(broker: str, tmp_path: Path) -> Kit:
    return Kit(broker, tmp_path / "data")


@pytest.fixture
def bronze(kit: Kit) -> Bronze:
    return Bronze(kit)


def alone() -> list[Event[Any]]:
    """Ann's two answers, rated by her and a critic, and compared by a labeler; the same of Bob. They share nothing."""
    found: list[Event[Any]] = []
    for user, text in (("ann", SECRET), ("bob", "Tea.")):
        one, two = (output(f"What is it, {user}?", f"{text} {n}", user_id=user) for n in range(2))
        for who in (user, f"critic of {user}"):
            up, down = feedback(one.response_id, "thumbs_up", who), feedback(two.response_id, "thumbs_down", who)
            found += [event(up), event(down)]
        found += [event(one), event(two)]
        found.append(label(one, two, task=f"task-{user}"))
    return found


def shared() -> list[Event[Any]]:
    """Carl's answer, of which Ann and Bob both have said something."""
    carls = output("What is tea?", "A drink.", user_id="carl")
    said = [("thumbs_up", "carl", None), ("comment", "ann", SECRET), ("comment", "bob", BOBS)]
    return [event(carls), *(event(feedback(carls.response_id, kind, who, text)) for kind, who, text in said)]


def sources(kit: Kit) -> Sources:
    return Sources(kit.settings.lake, kit.data / "registry")


def gone(kit: Kit, user: str = "ann") -> Erased:
    return erase(sources(kit), user, kit.data / "erasures", pause_seconds=0.0)


def assert_erased(kit: Kit, user: str = "ann", secret: str = SECRET) -> None:
    assert where_it_stands(kit, secret) == set()
    assert footprint(sources(kit), user).empty
    assert unfinished(kit.data / "erasures") == []


def once(action: Callable[[], object], *, when: int = 0) -> Callable[..., None]:
    """Carry something out at one call of many."""
    calls = iter(range(1_000_000))

    def called(*_: object) -> None:
        if next(calls) == when:
            action()

    return called


@pytest.mark.parametrize("moment", range(4), ids=DERIVED)
def test_a_rebuild_that_read_bronze_before_an_erasure_writes_nothing_of_it_back(
    kit: Kit, bronze: Bronze, moment: int
) -> None:
    """The tables are empty, so each is written once: the erasure comes between reading and writing of one of them."""
    bronze.put(*alone())
    reports = mend(kit, publish=once(lambda: gone(kit), when=moment))
    assert_erased(kit)
    assert [reports[name].conflicts for name in DERIVED] == [int(n == moment) for n in range(4)]
    assert all(r.identical for r in check(kit).values())
    assert [kit.latest(table).height for table in REBUILT[:2]] == [2, 2], "Bob's are there"


@pytest.mark.parametrize("late", DERIVED)
def test_a_round_of_refine_that_read_before_an_erasure_is_refused(kit: Kit, bronze: Bronze, late: str) -> None:
    bronze.put(*alone())
    erased: list[str] = []

    class Overtaken(Refine):
        def _append(self, table: Any, rows: Sequence[Any], moves: Any) -> None:
            if table.table.name == late and not erased:
                erased.append(late)
                gone(kit)
            super()._append(table, rows, moves)

    refine = Overtaken(kit.settings, Metrics(), threading.Event())
    with pytest.raises(TableConflict, match="erased or mended"):
        rounds(refine)
    assert erased == [late]
    assert_erased(kit)
    rounds(refine)
    assert_erased(kit)
    assert all(r.identical for r in check(kit, *DERIVED[:3]).values())


@pytest.mark.parametrize("moment", [0, 3, 7, 11])
def test_a_rebuild_in_the_middle_of_an_erasure_undoes_nothing_of_it(
    kit: Kit, bronze: Bronze, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before one of the deletions of the first pass, of bronze or of what is derived from it."""
    bronze.put(*alone(), *shared())
    rounds(kit.refine())
    real, rebuilt = erasing.delete_rows, once(lambda: mend(kit), when=moment)

    def delete_rows(*arguments: Any) -> int:
        rebuilt()
        return real(*arguments)

    monkeypatch.setattr(erasing, "delete_rows", delete_rows)
    gone(kit)
    assert_erased(kit)
    assert all(r.identical for r in check(kit, *DERIVED[:3]).values())


ERASE = """
import os, signal, sys
from pathlib import Path
from infra.provenance import erase as erasing, renewal
from infra.provenance.sources import Sources
from streams.adapters.lake import LakeTable
data, point, calls = Path(sys.argv[1]), int(sys.argv[2]), iter(range(1000))
def dying(real):
    def called(*arguments, **more):
        if next(calls) == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)
    return called
erasing.delete_rows = renewal.delete_rows = dying(erasing.delete_rows)
LakeTable.fence, erasing.forget_history = dying(LakeTable.fence), dying(erasing.forget_history)
erasing.erase(Sources(data / "lake", data / "registry"), "ann", data / "erasures", pause_seconds=0.0)
"""


def killed(kit: Kit, point: int) -> None:
    """An erasure that kills itself before one of its steps."""
    ended = subprocess.run([sys.executable, "-c", ERASE, str(kit.data), str(point)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", [3, 8, 14, 50])
def test_an_erasure_that_is_killed_while_a_rebuild_writes_is_finished_by_the_next_call(
    kit: Kit, bronze: Bronze, point: int
) -> None:
    """Before a deletion in bronze, the first fence, a deletion in gold, the clearing of old versions. The rebuild may
    write what the erasure had not come to: it is still in the plan."""
    bronze.put(*alone(), *shared())
    rounds(kit.refine())
    for table in (tables.RESPONSES, tables.RATINGS):
        wreck(kit.table(table))
    mend(kit, publish=once(lambda: killed(kit, point)))
    assert unfinished(kit.data / "erasures") == ["ann"]
    gone(kit)
    assert_erased(kit)
    assert all(r.identical for r in check(kit, *DERIVED[:3]).values())


def wreck(table: LakeTable) -> None:
    """Another revision of each row that nothing in bronze says."""
    rows = table.all().collect().with_columns(pl.col("revision") + 1, retracted=pl.lit(value=True))
    table.append(table.arrow(rows.to_dicts()), {})


REBUILD = """
import os, signal, sys
from pathlib import Path
from schemas.connection import KafkaConnection
from streams.rebuild import Rebuild
from streams.settings import StreamSettings
calls, point = iter(range(1000)), int(sys.argv[3])
def publish(rows):
    if next(calls) == point:
        os.kill(os.getpid(), signal.SIGKILL)
settings = StreamSettings(data=Path(sys.argv[1]), kafka=KafkaConnection(bootstrap_servers=sys.argv[2]))
Rebuild(settings, publish=publish, patience_seconds=0.2).run(mend=True)
"""


def test_a_rebuild_that_is_killed_half_way_leaves_nothing_that_an_erasure_does_not_find(
    kit: Kit, bronze: Bronze
) -> None:
    bronze.put(*alone(), *shared())
    arguments = [sys.executable, "-c", REBUILD, str(kit.data), kit.bootstrap, "1"]
    assert subprocess.run(arguments, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert kit.rows(tables.RESPONSES).height == 5 and kit.rows(tables.RATINGS).height == 0
    gone(kit)
    mend(kit)
    assert_erased(kit)
    assert all(r.identical for r in check(kit).values())


@pytest.mark.parametrize("moment", range(3), ids=DERIVED[:3])
def test_an_erasure_does_not_write_back_what_another_one_has_erased(
    kit: Kit, bronze: Bronze, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann's computes Carl's row anew with what Bob has said of it; then Bob's comes and goes; then Ann's writes."""
    bronze.put(*alone(), *shared())
    rounds(kit.refine())
    real, other = renewal._replace, once(lambda: gone(kit, "bob"), when=moment)  # pyright: ignore[reportPrivateUsage]

    def replace(*arguments: Any, **more: Any) -> Any:
        other()
        return real(*arguments, **more)

    monkeypatch.setattr(renewal, "_replace", replace)
    gone(kit)
    assert_erased(kit)
    assert_erased(kit, "bob", BOBS)
    (carls,) = kit.latest(tables.RESPONSES).to_dicts()
    assert (carls["user_id"], carls["thumb"], carls["comment"], carls["feedback_count"]) == ("carl", 1, None, 1)
    assert kit.rows(tables.RESPONSES).height == 1, "earlier revisions are gone"
    assert all(r.identical for r in check(kit, *DERIVED[:3]).values())


def test_erasures_of_several_people_and_of_one_person_twice_run_side_by_side(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*alone(), *shared())
    rounds(kit.refine())
    failed: list[BaseException] = []

    def run(user: str) -> None:
        try:
            gone(kit, user)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test says it
            failed.append(error)

    runners = [threading.Thread(target=run, args=(user,)) for user in ("ann", "bob", "ann")]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert failed == []
    for user, secret in (("ann", SECRET), ("bob", BOBS)):
        assert footprint(sources(kit), user).empty
        assert not any(secret in str(kit.rows(table).to_dicts()) for table in tables.ALL)
    assert unfinished(kit.data / "erasures") == []
    assert kit.latest(tables.RESPONSES)["user_id"].to_list() == ["carl"]
    for table in REBUILT:
        kept = kit.table(table)._handle.metadata().configuration  # pyright: ignore[reportPrivateUsage]
        assert kept["delta.logRetentionDuration"] != "interval 0 seconds"


def test_of_two_rebuilds_the_one_that_read_first_and_writes_last_is_refused(kit: Kit, bronze: Bronze) -> None:
    bronze.put(*alone())
    reports = mend(kit, publish=once(lambda: mend(kit)))
    assert (reports["responses"].conflicts, reports["responses"].mended) == (1, 0)
    for table in REBUILT:
        assert kit.rows(table).height == kit.latest(table).height, "each row once"
    assert all(r.identical for r in check(kit).values())


@pytest.mark.parametrize("cleared", [True, False])
def test_a_comparison_between_which_a_person_was_erased_says_so(
    kit: Kit, bronze: Bronze, cleared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old files may be gone under it, or it sees the table as it was and bronze as it is."""
    bronze.put(*alone())
    rounds(kit.refine())
    erased = once(lambda: gone(kit))
    if not cleared:
        monkeypatch.setattr(erasing, "forget_history", lambda *_: None)

    class Torn(Silver):
        def refresh(self) -> None:
            self.table.refresh()
            erased()
            for table in self.opened.bronze:
                table.refresh()

    monkeypatch.setattr("streams.rebuild.Silver", Torn)
    with pytest.raises(TableConflict, match="a person was erased, or rows were mended, while the tables were read"):
        check(kit)
    assert all(r.identical for r in check(kit, *DERIVED[:3]).values())
