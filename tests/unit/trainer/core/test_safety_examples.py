"""Production answers as examples of what is unsafe."""

from trainer.core.safety_examples import UNFLAGGED_WEIGHT, FlagRow, from_flags

PROMPT = (("user", "How do I get rid of a wasp nest?"),)


def row(n: int, flags: int, text: str = "Call a professional.") -> FlagRow:
    return FlagRow(f"r{n:03d}", PROMPT, f"{text} {n}" if text else "", flags)


def test_what_users_flagged_is_unsafe_and_the_more_users_the_surer() -> None:
    found = from_flags([row(0, 1), row(1, 3)])
    assert [(e.unsafe, e.weight) for e in found] == [(True, 0.5), (True, 0.75)]


def test_of_what_was_rated_and_not_flagged_the_newest_are_safe_four_to_one_and_weigh_less() -> None:
    found = from_flags([row(n, 1 if n == 3 else 0) for n in range(20)])
    safe = [e for e in found if not e.unsafe]
    assert [e.completion for e in safe] == [f"Call a professional. {n}" for n in (16, 17, 18, 19)]
    assert {e.weight for e in safe} == {UNFLAGGED_WEIGHT}


def test_without_a_flag_there_is_nothing_to_tell_apart_and_empty_answers_are_left_out() -> None:
    assert from_flags([row(n, 0) for n in range(9)]) == []
    assert from_flags([row(0, 2, text="")]) == []
