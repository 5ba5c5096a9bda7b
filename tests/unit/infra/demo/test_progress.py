"""What the log tells of cycles and versions."""

from infra.demo.progress import Progress, cycle_view, order_of, version_views
from schemas.cycles import CycleStatus, Stage
from schemas.versions import VersionState
from tests.unit.infra.demo.events import at, cycle, live, one_cycle, registered


def test_a_cycle_runs_until_it_is_finished_refused_or_failed() -> None:
    started = Progress().heard(cycle(CycleStatus.STARTED), at(0))
    assert started.running
    for status in (CycleStatus.FINISHED, CycleStatus.REFUSED, CycleStatus.FAILED):
        assert not started.heard(cycle(status), at(1)).running


def test_a_failed_cycle_does_not_count_as_one_that_ran_to_its_end() -> None:
    progress = (
        Progress().heard(cycle(CycleStatus.FAILED, id="c1"), at(0)).heard(cycle(CycleStatus.REFUSED, id="c2"), at(1))
    )
    assert [c.last.cycle_id for c in progress.ended] == ["c2"]
    assert [c.last.cycle_id for c in progress.failed] == ["c1"]


def test_nothing_is_settled_before_the_new_version_is_live() -> None:
    progress = Progress().heard(cycle(CycleStatus.FINISHED, version="v1"), at(0)).moved(registered("v1"), at(0))
    assert not progress.settled()
    assert progress.moved(live(registered("v1")), at(1)).settled()


def test_a_refused_version_is_not_waited_for() -> None:
    assert Progress().heard(cycle(CycleStatus.REFUSED, version="v1"), at(0)).settled()


def test_each_stage_has_the_seconds_between_its_end_and_the_end_of_the_one_before() -> None:
    record = one_cycle().cycles["c1"]
    assert record.stage_seconds == {"pin": 2.0, "reward_model": 10.0}
    assert record.metrics == {"kl": 1.5}


def test_promotions_are_told_once_each_in_order() -> None:
    assert [version for _, version in one_cycle().promotions] == ["base", "v1"]
    assert one_cycle().serving == "v1"


def test_after_a_stage_is_done_the_view_shows_the_next_one() -> None:
    view = cycle_view(Progress().heard(cycle(CycleStatus.STAGE_DONE, stage=Stage.REWARD_MODEL), at(0)))
    assert view is not None
    assert (view.stage, view.fraction) == (Stage.POLICY, 0.0)
    assert cycle_view(Progress()) is None


def test_versions_are_shown_in_the_order_of_their_numbers() -> None:
    assert sorted(["v10", "v2", "base", "v1"], key=order_of) == ["base", "v1", "v2", "v10"]
    assert [(v.version, v.state) for v in version_views(one_cycle().board)] == [
        ("base", VersionState.RETIRED.value),
        ("v1", VersionState.LIVE.value),
    ]
