"""Which state of a training is kept, and when it has gone too far."""

import pytest

from trainer.core.candidates import Candidate, Candidates, smoothed


def candidates(*judged: float | None, error: float = 0.0, unfit: tuple[int, ...] = ()) -> Candidates[str]:
    found: Candidates[str] = Candidates()
    for n, score in enumerate(judged):
        found.add(
            Candidate(
                iteration=n,
                state=f"state {n}",
                reward=float(n),
                kl=float(n),
                costs={},
                kept_limits=n not in unfit,
                judged=score,
                judged_error=error,
            )
        )
    return found


def kept(found: Candidates[str]) -> str | None:
    best = found.best()
    return best.state if best else None


def test_a_score_is_the_mean_over_a_state_and_its_neighbours() -> None:
    judged = [1.0, 4.0, 1.0, 7.0]
    assert smoothed(judged, 0) == pytest.approx(2.5)
    assert smoothed(judged, 1) == pytest.approx(2.0)
    assert smoothed(judged, 2) == pytest.approx(4.0)
    assert smoothed(judged, 3) == pytest.approx(4.0)


def test_the_best_judged_state_is_kept_and_of_equals_the_later() -> None:
    assert kept(candidates(0.0, 1.0, 2.0, 3.0, 2.0, 0.0, 0.0)) == "state 3"
    assert kept(candidates(1.0, 4.0, 1.0, 7.0)) == "state 3"


def test_a_lucky_batch_does_not_win_against_a_plateau() -> None:
    # Means over three: 1.0, 0.67, 1.0, 1.33, 2.0, 2.0: the lone 2 at the start loses.
    assert kept(candidates(0.0, 2.0, 0.0, 1.0, 2.0, 2.0)) == "state 5"


def test_a_state_beyond_its_limits_is_never_kept() -> None:
    assert kept(candidates(0.0, 1.0, 5.0, 5.0, unfit=(2, 3))) == "state 1"
    assert kept(candidates(0.0, 1.0, unfit=(0, 1))) is None


def test_without_a_judge_the_last_state_within_its_limits_is_kept() -> None:
    assert kept(candidates(None, None, None, unfit=(2,))) == "state 1"
    assert kept(candidates()) is None


def test_training_has_turned_when_the_last_states_are_all_clearly_worse() -> None:
    falling = (0.0, 1.0, 0.5, 0.4, 0.3)
    assert candidates(*falling).turned(3)
    # Two standard errors of a difference are 2 * sqrt(2) * 0.2 = 0.57: 0.5 below the best is chance.
    assert not candidates(*falling, error=0.2).turned(3)
    assert not candidates(*falling).turned(0)
    assert not candidates(0.0, 1.0, 0.5, 1.1, 0.3).turned(3)
    assert not candidates(None, None, None, None, None).turned(2)
