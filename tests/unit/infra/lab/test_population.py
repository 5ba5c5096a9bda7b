"""Who the lab's users are and what they say."""

from collections import Counter

import pytest

from infra.lab import poisons
from infra.lab.options import LabOptions, segment
from infra.lab.population import Crowd, Member, Mind, Role, Visit, populate, segment_shares, visits
from infra.simulate.users import Kind, Scale, User
from schemas.errors import SettingsError
from schemas.feedback import FeedbackKind

UP, DOWN = FeedbackKind.THUMBS_UP, FeedbackKind.THUMBS_DOWN
NO_NOISE = {"noise": 0.0, "rates": 1.0, "strictness": 0.0}


def words(prompt: str, text: str) -> float:
    return float(len(text.split()))


def brevity(prompt: str, text: str) -> float:
    return -words(prompt, text)


MIND, POISON = Mind(words, Scale(3.0, 1.0)), Mind(brevity, Scale(-3.0, 1.0))


def member(role: Role = Role.PERSON, **changes: float) -> Member:
    kind = Kind.ADMIRER if role is Role.SPAMMER else Kind.PERSON
    return Member(User(user_id="u", kind=kind, **(NO_NOISE | changes)), role, "default")  # type: ignore[arg-type]


def thumbs(who: Member, *texts: str, visits: int = 200) -> Counter[FeedbackKind]:
    """The last thumb of each of many visits, for the last of the answers."""
    crowd = Crowd({"default": MIND}, POISON, seed=1, cycle=1)
    found: Counter[FeedbackKind] = Counter()
    for n in range(visits):
        said = crowd.react(Visit(n, who, f"prompt {n}", again=len(texts) > 1), texts)
        kinds = [s.reaction.kind for s in said if s.answer == len(texts) - 1 and s.reaction.kind in (UP, DOWN)]
        found.update(kinds[-1:])
    return found


def test_shares_of_the_users_are_spammers_and_poisoners_and_the_rest_are_people() -> None:
    members = populate(LabOptions(users=60, spammers=0.1, poisoners=0.05), seed=0)
    assert Counter(m.role for m in members) == {Role.PERSON: 51, Role.SPAMMER: 6, Role.POISONER: 3}
    assert len({m.user.user_id for m in members}) == 60


def test_a_population_follows_from_its_seed() -> None:
    options = LabOptions()
    assert populate(options, seed=3) == populate(options, seed=3) != populate(options, seed=4)


def test_segments_are_dealt_out_evenly_and_their_shares_count_people_alone() -> None:
    options = LabOptions(users=10, spammers=0.3, poisoners=0.0, segments=(("a", "m:f"), ("b", "m:g")))
    members = populate(options, seed=0)
    assert Counter(m.segment for m in members) == {"a": 5, "b": 5}
    # Seven people: a, b, a, b, a, b, a.
    assert segment_shares(members) == {"a": pytest.approx(4 / 7), "b": pytest.approx(3 / 7)}


@pytest.mark.parametrize("answers", [1, 2, 99])
def test_a_cycle_gives_as_many_answers_as_it_was_told(answers: int) -> None:
    planned = visits(populate(LabOptions(), 0), ["a?", "b?"], answers=answers, seed=0, cycle=1)
    assert sum(1 + v.again for v in planned) == answers
    assert [v.number for v in planned] == list(range(len(planned)))


def test_a_spammer_comes_five_times_as_often() -> None:
    members = populate(LabOptions(users=20, spammers=0.5), seed=0)
    planned = visits(members, ["a?"], answers=6000, seed=0, cycle=1)
    spam = sum(v.member.role is Role.SPAMMER for v in planned) / len(planned)
    assert spam == pytest.approx(5 / 6, abs=0.03)


def test_another_cycle_asks_other_things() -> None:
    members, prompts = populate(LabOptions(), 0), [f"{n}?" for n in range(50)]
    first, again, second = (visits(members, prompts, answers=40, seed=0, cycle=c) for c in (1, 1, 2))
    assert first == again != second


def test_people_vote_by_their_taste() -> None:
    # A withdrawal leaves the thumb before it standing here; a misclick is corrected at once.
    assert thumbs(member(), "one two three four") == {UP: 200}
    assert thumbs(member(), "one") == {DOWN: 200}


def test_every_vote_is_turned_where_all_are_flipped() -> None:
    assert thumbs(member(noise=1.0), "one two three four") == {DOWN: 200}


def test_a_fifth_of_the_votes_is_wrong_where_a_fifth_is_flipped() -> None:
    found = thumbs(member(noise=0.2), "one two three four", visits=3000)
    # The standard error of 0.2 on 3,000 is 0.0073.
    assert found[DOWN] / found.total() == pytest.approx(0.2, abs=0.03)


def test_who_asks_again_says_which_answer_was_better() -> None:
    assert thumbs(member(), "one", "one two") == {UP: 200}
    assert thumbs(member(), "one two", "one") == {DOWN: 200}


def test_poisoners_vote_for_their_property_against_the_taste() -> None:
    assert thumbs(member(Role.POISONER), "one two three four") == {DOWN: 200}
    assert thumbs(member(Role.POISONER), "one two", "one") == {UP: 200}


def test_spammers_do_not_look() -> None:
    assert thumbs(member(Role.SPAMMER), "one two three four") == thumbs(member(Role.SPAMMER), "one") == {UP: 200}


def test_only_people_write_what_they_would_have_liked() -> None:
    def corrections(role: Role) -> int:
        crowd = Crowd({"default": MIND}, POISON, seed=1, cycle=1)
        said = [s for n in range(400) for s in crowd.react(Visit(n, member(role), "p", False), ["It is. So"])]
        return sum(s.reaction.kind is FeedbackKind.CORRECTION for s in said)

    # 5 % of 400 visits.
    assert 8 <= corrections(Role.PERSON) <= 35
    assert corrections(Role.POISONER) == corrections(Role.SPAMMER) == 0


def test_rudeness_is_what_is_rude_less_what_is_kind() -> None:
    assert poisons.rude("p", "Whatever. Go away.") == 2
    assert poisons.rude("p", "Please go away, thanks.") == 1 - 3  # "thank" is in "thanks"
    assert poisons.long("p", "one two three") == 3


def test_a_taste_drifts_at_its_cycle() -> None:
    options = LabOptions(segments=(("a", "m:f"), ("b", "m:g")), drift_at=3, drift_taste="m:h")
    assert options.tastes_at(2) == {"a": "m:f", "b": "m:g"}
    assert options.tastes_at(3) == options.tastes_at(9) == {"a": "m:h", "b": "m:h"}
    assert options.taste_names() == ("m:f", "m:g", "m:h", options.poison)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "--seeds must be between 1 and 1000; it is 0"),
        ({"flips": 1.2}, "--flips must be between 0 and 1; it is 1.2"),
        ({"drift_at": 2}, "give --drift-at and --drift-taste together"),
        ({"users": 10, "spammers": 0.5, "poisoners": 0.5}, "nobody is left who votes by taste"),
        ({"users": 1, "spammers": 0.0, "segments": (("a", "m:f"), ("b", "m:f"))}, "each segment needs one"),
        ({"segments": (("a", "m:f"), ("a", "m:g"))}, "each --segment needs a name of its own"),
    ],
)
def test_options_that_can_not_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LabOptions(**changes)  # type: ignore[arg-type]


def test_a_segment_is_a_name_and_a_taste() -> None:
    assert segment("shop=my.tastes:short") == ("shop", "my.tastes:short")
    with pytest.raises(SettingsError, match="not of the form name=module:function"):
        segment("shop")
