"""How simulated users judge."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.simulate import users
from infra.simulate.users import Kind, Scale, User
from schemas.feedback import FeedbackKind

UP, DOWN = FeedbackKind.THUMBS_UP, FeedbackKind.THUMBS_DOWN
SCALE = Scale(middle=1.0, spread=0.5)


def person(*, noise: float = 0.0, rates: float = 1.0, strictness: float = 0.0) -> User:
    return User("user-000", Kind.PERSON, noise, rates, strictness)


def first_thumb(user: User, first: float, second: float, rng: random.Random) -> FeedbackKind:
    thumbs = users.compare(user, first, second, rng=rng)
    assert thumbs is not None
    return thumbs[0].kind


def test_a_population_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one = users.population(users=40, noise=0.2, spammers=3, seed=1)
    assert one == users.population(users=40, noise=0.2, spammers=3, seed=1)
    assert one != users.population(users=40, noise=0.2, spammers=3, seed=2)
    assert len({u.user_id for u in one}) == 43
    assert [u.kind for u in one[40:]] == [Kind.ADMIRER, Kind.CLICKER, Kind.ADMIRER]


def test_the_scale_is_the_mean_and_the_mean_distance_from_it() -> None:
    assert users.scale_of([0.0, 1.0, 2.0, 3.0, 4.0]) == Scale(middle=2.0, spread=1.2)
    assert users.scale_of([5.0]) == Scale(middle=5.0, spread=0.0)
    assert users.scale_of([0.0, 0.0, 0.0, 1.0]) == Scale(middle=0.25, spread=0.375)


@given(
    values=st.lists(st.integers(-50, 50), min_size=1, max_size=40),
    value=st.integers(-60, 60),
    # Powers of two keep the arithmetic exact, so that ties stay ties.
    factor=st.sampled_from([0.25, 2.0, 64.0]),
    shift=st.integers(-100, 100),
    strictness=st.sampled_from([-0.5, -0.25, 0.0, 0.25, 0.5]),
)
def test_a_thumb_does_not_depend_on_the_scale_of_the_taste(
    values: list[int], value: int, factor: float, shift: int, strictness: float
) -> None:
    user = person(strictness=strictness)
    asked = users.likes(user, value, users.scale_of(values))
    spread = users.scale_of(values).spread
    if abs((value - users.scale_of(values).middle) - strictness * spread) < 1e-6:
        return  # a tie within rounding may fall either way
    moved = users.scale_of([factor * v + shift for v in values])
    assert users.likes(user, factor * value + shift, moved) == asked


def test_better_than_usual_is_a_thumb_up_and_worse_a_thumb_down() -> None:
    rng = random.Random(0)
    assert [r.kind for r in users.react(person(), 2.0, SCALE, rng=rng)][-1] == UP
    assert [r.kind for r in users.react(person(), 0.0, SCALE, rng=rng)][-1] == DOWN


@pytest.mark.parametrize(("strictness", "liked"), [(-0.1, True), (0.0, False), (0.1, False)])
def test_an_answer_as_good_as_the_usual_one_is_up_to_how_strict_a_person_is(strictness: float, liked: bool) -> None:
    assert users.likes(person(strictness=strictness), 1.0, SCALE) is liked
    assert users.likes(person(strictness=strictness), 1.0, Scale(1.0, 0.0)) is liked


def test_noise_turns_about_its_share_of_the_thumbs() -> None:
    rng = random.Random(3)
    thumbs = [first_thumb(person(noise=0.2), 2.0, 0.0, rng) for _ in range(2000)]
    assert 0.17 < thumbs.count(DOWN) / 2000 < 0.23


def test_one_who_asked_again_prefers_the_better_answer_even_where_both_are_bad() -> None:
    thumbs = users.compare(person(), -2.0, -1.0, rng=random.Random(0))
    assert thumbs is not None
    assert [t.kind for t in thumbs] == [DOWN, UP]


def test_of_two_equal_answers_there_is_nothing_to_say() -> None:
    assert users.compare(person(), 2.0, 2.0, rng=random.Random(0)) is None


def test_an_answer_like_the_usual_ones_is_rated_five_times_more_rarely() -> None:
    rng = random.Random(5)
    rated = sum(bool(users.react(person(), SCALE.middle, SCALE, rng=rng)) for _ in range(2000))
    assert 0.17 < rated / 2000 < 0.23


def test_a_person_who_does_not_rate_says_nothing() -> None:
    assert users.react(person(rates=0.0), 2.0, SCALE, rng=random.Random(0)) == ()


def test_an_admirer_clicks_many_times_and_always_up() -> None:
    admirer = User("spammer-000", Kind.ADMIRER, 0.0, 1.0, 0.0)
    said = users.react(admirer, -3.0, SCALE, rng=random.Random(0))
    assert 4 <= len(said) <= 8
    assert {r.kind for r in said} == {UP}


def test_a_clicker_clicks_without_looking() -> None:
    clicker = User("spammer-001", Kind.CLICKER, 0.0, 1.0, 0.0)
    rng = random.Random(0)
    kinds = [r.kind for _ in range(200) for r in users.react(clicker, 2.0, SCALE, rng=rng)]
    assert 0.4 < kinds.count(UP) / len(kinds) < 0.6
    assert not users.asks_again(clicker, rng)


def test_a_correction_is_liked_better_than_what_it_corrects_or_is_not_given() -> None:
    def shorter(prompt: str, response: str) -> float:
        return -len(response)

    rng = random.Random(0)
    given = [
        users.correct("p", "One. Two is cut o", known=["One, two and three."], taste=shorter, rng=rng)
        for _ in range(400)
    ]
    assert set(given) == {None, "One."}
    assert all(users.correct("p", "Ok.", known=["A longer one."], taste=shorter, rng=rng) is None for _ in range(200))
