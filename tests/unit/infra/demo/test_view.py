"""The terminal view as a function of the state."""

from dataclasses import replace

import pytest
from rich.console import Console

from infra.demo import view
from infra.demo.state import CycleView, DemoState, Rate, Said, VersionView
from schemas.cycles import CycleStatus, Stage

EMPTY = DemoState(model="tiny", seed=0, folder="runs/demo", elapsed=0, phase="starting", cycles_wanted=2)
BUSY = replace(
    EMPTY,
    elapsed=65,
    phase="training",
    cycles_ended=1,
    answers=1234,
    feedback=999,
    topics={"outputs": 1234},
    tables={"outputs": 1230},
    dead_letters=6,
    rates=(Rate("base", 30, 70, 150), Rate("v1", 0, 0, 3)),
    cycle=CycleView(2, "c2", CycleStatus.PROGRESS, Stage.POLICY, 0.4, 30, metrics={"kl": 1.25, "reward": 0.5}),
    versions=(VersionView("base", "retired"), VersionView("v1", "live", 3.2, 0.7)),
    serving="v1",
    said=(Said("v1", "Why?", "Because [bold]\nof it.", 1),),
)


def text_of(state: DemoState, *, height: int = 60) -> str:
    console = Console(width=100, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(view.render(state, height=height))
    return capture.get()


def test_a_state_in_which_nothing_has_happened_can_be_shown() -> None:
    shown = text_of(EMPTY)
    assert "waiting for enough new preferences" in shown
    assert "users learn what to expect" in shown


def test_a_busy_state_shows_who_serves_how_far_training_is_and_what_users_think() -> None:
    shown = text_of(BUSY)
    for expected in ("▶ serving", "40%", "kl 1.25", "30% up", "1,234", "no thumbs yet", "judge 70%"):
        assert expected in shown


def test_markup_in_an_answer_is_shown_as_it_is_on_one_line() -> None:
    assert "Because [bold] of it." in text_of(BUSY)


@pytest.mark.parametrize("height", [24, 30, 40])
def test_a_frame_is_no_higher_than_the_screen(height: int) -> None:
    full = replace(BUSY, said=BUSY.said * 8)
    lines = text_of(full, height=height).rstrip("\n").split("\n")
    assert len(lines) <= height


@pytest.mark.parametrize("status", [CycleStatus.FINISHED, CycleStatus.REFUSED, CycleStatus.FAILED])
def test_a_cycle_that_ended_says_how(status: CycleStatus) -> None:
    assert BUSY.cycle is not None
    ended = replace(BUSY, cycle=replace(BUSY.cycle, status=status, version="v2", reason="judge: 0.39"))
    assert view.ENDED[status] in text_of(ended)
    assert "judge: 0.39" in text_of(ended)


def test_the_plain_line_says_the_same_in_short() -> None:
    line = view.plain(BUSY)
    assert line.startswith("1:05  training | 1234 answers")
    assert "policy (PPO) 40%, reward 0.50, kl 1.25" in line
    assert line.endswith("serving v1 | base 30% up")
