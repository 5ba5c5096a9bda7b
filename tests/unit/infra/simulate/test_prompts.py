"""The prompts and their split."""

from infra.simulate import prompts
from schemas.ids import prompt_id


def test_all_prompts_are_different_and_short() -> None:
    everything = prompts.everything()
    assert len({p.casefold() for p in everything}) == len(everything) == 320
    assert max(len(p.split()) for p in everything) <= 14


def test_every_fourth_prompt_is_held_out_and_the_parts_do_not_meet() -> None:
    traffic, held_out = prompts.traffic(), prompts.held_out()
    assert (len(traffic), len(held_out)) == (240, 80)
    assert not set(traffic) & set(held_out)
    assert held_out[0] == prompts.everything()[3]


def test_a_prompt_is_one_turn_of_a_user() -> None:
    (message,) = prompts.as_messages("Why do cats purr?")
    assert (message.role, message.content) == ("user", "Why do cats purr?")
    assert prompt_id([message]) != prompt_id(prompts.as_messages("Why do dogs bark?"))
