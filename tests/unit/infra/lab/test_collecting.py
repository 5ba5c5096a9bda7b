"""Visits as events."""

import re

from infra.demo.options import TINY
from infra.lab.answering import Drawn
from infra.lab.collecting import DAY, EPOCH, Place, feedback, outputs
from infra.lab.population import Member, Role, Said, Visit
from infra.simulate.users import Kind, Reaction, User
from schemas.feedback import FeedbackKind
from schemas.ids import RESPONSE_ID_PATTERN

WHO = Member(User("user-001", Kind.PERSON, 0.0, 1.0, 0.0), Role.PERSON, "shop")
VISIT = Visit(3, WHO, "Where is it?", again=True)
PLACE = Place(seed=2, cycle=1, visits=10)
ANSWERS = [Drawn("Here.", 5, 2, True), Drawn("There and", 5, 24, False)]


def given() -> list:  # type: ignore[type-arg]
    return outputs(PLACE, VISIT, ANSWERS, version="v1", base_model="tiny", tuning=TINY)


def test_an_answer_is_an_output_as_the_gateway_sends_it() -> None:
    first, second = (event.data for event in given())
    assert (first.completion, first.version, first.segment, first.user_id) == ("Here.", "v1", "shop", "user-001")
    assert (first.finish_reason, second.finish_reason) == ("stop", "length")
    assert second.regenerates == first.response_id and first.regenerates is None
    assert first.prompt_id == second.prompt_id


def test_ids_are_the_gateways_in_form_and_different_everywhere() -> None:
    ids = [Place(s, c, 10).response_id(VISIT, a) for s in (0, 1) for c in (1, 2) for a in (0, 1)]
    assert len(set(ids)) == 8 and all(re.fullmatch(RESPONSE_ID_PATTERN, i) for i in ids)
    # Version 7 and the variant bits of RFC 9562.
    assert all(i[-20] == "7" and i[-16] in "89ab" for i in ids)


def test_ids_are_in_order_of_time_and_the_same_again() -> None:
    visits = [Visit(n, WHO, "p", False) for n in range(10)]
    ids = [PLACE.response_id(visit, 0) for visit in visits]
    assert ids == sorted(ids) == [PLACE.response_id(visit, 0) for visit in visits]


def test_a_visit_happens_within_its_day_and_before_it_is_taken_in() -> None:
    said = [Said(0, n, Reaction(FeedbackKind.THUMBS_UP)) for n in range(8)]
    last = Visit(9, WHO, "p", False)
    times = [e.time for e in (*given(), *feedback(PLACE, VISIT, said), *feedback(PLACE, last, said))]
    assert times[0] == EPOCH + 0.25 * DAY  # visit 3 of 10, in 20 hours: hour 6
    assert max(times) < PLACE.ingested_at < EPOCH + DAY
    assert Place(2, 2, 10).asked_at(Visit(0, WHO, "p", False)) > PLACE.ingested_at


def test_what_is_said_names_its_answer_and_has_an_id_of_its_own() -> None:
    said = [Said(0, 0, Reaction(FeedbackKind.REGENERATE)), Said(0, 1, Reaction(FeedbackKind.THUMBS_DOWN))]
    said.append(Said(1, 1, Reaction(FeedbackKind.THUMBS_UP)))
    events = feedback(PLACE, VISIT, said)
    first, second = (PLACE.response_id(VISIT, n) for n in (0, 1))
    assert [e.data.response_id for e in events] == [first, first, second]
    assert len({e.id for e in events}) == 3
    assert [e.time for e in events] == sorted(e.time for e in events)
