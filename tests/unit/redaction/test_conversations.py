"""What a conversation promises: placeholders, their numbers, and that nothing of a value stays in it."""

import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from thumbwheel_redaction import Kind, Recogniser, Redactor, Span


def redacted(text: str) -> str:
    return Redactor().conversation().redact(text)


def test_a_value_is_replaced_by_a_placeholder_of_its_kind():
    assert redacted("mail me: ann@example.org") == "mail me: [EMAIL_1]"


def test_each_kind_has_a_placeholder_of_its_name():
    text = "ann@example.org +49 30 12345678 4111111111111111 DE89370400440532013000 123-45-6789 203.0.113.7"
    text += " AKIAIOSFODNN7EXAMPLE"
    assert redacted(text) == "[EMAIL_1] [PHONE_1] [CARD_1] [IBAN_1] [NATIONAL_ID_1] [IP_1] [SECRET_1]"


def test_values_are_numbered_by_their_first_occurrence_in_the_order_of_the_calls():
    talk = Redactor().conversation()
    assert talk.redact("b@example.org, a@example.org, b@example.org") == "[EMAIL_1], [EMAIL_2], [EMAIL_1]"
    assert talk.redact("c@example.org and a@example.org") == "[EMAIL_3] and [EMAIL_2]"


def test_another_conversation_begins_anew():
    redactor = Redactor()
    assert redactor.conversation().redact("a@example.org b@example.org") == "[EMAIL_1] [EMAIL_2]"
    assert redactor.conversation().redact("b@example.org") == "[EMAIL_1]"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ann@example.org", "Ann@Example.ORG"),
        ("ann@example.org", "ann (at) example (dot) org"),
        ("ann@example.org", "ａｎｎ＠ｅｘａｍｐｌｅ．ｏｒｇ"),
        ("4111111111111111", "4111-1111 1111 1111"),
        ("DE89370400440532013000", "de89 3704 0044 0532 0130 00"),
        ("+49 30 12345678", "0049 30 12345678"),
        ("+49 30 12345678", "+49 (0)30-12345678"),
        ("415-555-0132", "(415) 555-0132"),
        ("2001:db8::1", "2001:0DB8:0:0:0:0:0:1"),
        ("123-45-6789", "SSN 123 45 6789"),
        ("203.0.113.7", "２０３.0.113.7"),
    ],
)
def test_spellings_of_one_value_get_the_same_placeholder(one: str, other: str):
    talk = Redactor().conversation()
    assert talk.redact(one).endswith("_1]")
    assert talk.redact(other).endswith("_1]")


def test_secrets_that_differ_in_case_are_different():
    talk = Redactor().conversation()
    assert talk.redact("password=Hunter2x password=hunter2x") == "password=[SECRET_1] password=[SECRET_2]"


def test_placeholders_that_stand_in_a_text_stay():
    text = "ask [EMAIL_1] or [PHONE_12] about [SECRET_3]"
    assert redacted(text) is text


def test_a_number_that_a_placeholder_in_the_text_bears_is_not_given_again():
    assert (
        redacted("[EMAIL_1] and [EMAIL_3] know a@example.org, b@example.org")
        == "[EMAIL_1] and [EMAIL_3] know [EMAIL_2], [EMAIL_4]"
    )


def test_what_looks_like_a_placeholder_of_no_kind_is_text():
    assert redacted("[ADDRESS_1] a@example.org") == "[ADDRESS_1] [EMAIL_1]"


def test_a_text_without_findings_is_the_same_object():
    for text in ("", "nothing here", "ünïcödé ｗｉｄｅ", "version 1.2.3.4 of 2026-11-21, token = get_token()"):
        assert redacted(text) is text


def test_what_was_found_is_counted_by_kind():
    talk = Redactor().conversation()
    assert talk.found == {}
    talk.redact("a@example.org a@example.org 203.0.113.7")
    talk.redact("b@example.org")
    assert talk.found == {Kind.EMAIL: 3, Kind.IP: 1}


def test_the_count_that_was_handed_out_does_not_change():
    talk = Redactor().conversation()
    before = talk.found
    talk.redact("a@example.org")
    assert before == {}


def test_a_conversation_holds_and_shows_no_value():
    talk = Redactor().conversation()
    talk.redact("ann@example.org 4111111111111111")
    assert repr(talk) == "<Conversation: 2 replaced>"
    held = repr([getattr(talk, name) for name in type(talk).__slots__ if name != "_redactor"])
    assert "ann" not in held
    assert "4111" not in held
    assert not [thing for thing in gc.get_referents(talk) if thing in ("ann@example.org", "4111111111111111")]


def test_a_conversation_cannot_be_written_down():
    talk = Redactor().conversation()
    talk.redact("ann@example.org")
    with pytest.raises(TypeError, match="a conversation stays in its process"):
        pickle.dumps(talk)


def test_two_conversations_give_one_value_different_digests():
    redactor = Redactor()
    first, second = redactor.conversation(), redactor.conversation()
    for talk in (first, second):
        talk.redact("ann@example.org")
    assert set(first._numbers) & set(second._numbers) == set()


def test_only_the_kinds_asked_for_are_replaced():
    redactor = Redactor(kinds=[Kind.EMAIL])
    assert redactor.conversation().redact("a@example.org 203.0.113.7") == "[EMAIL_1] 203.0.113.7"


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="address"):
        Redactor(kinds=["address"])


def test_the_longer_of_two_findings_counts():
    # `pa55@db.example.org` reads as an e-mail address; the name, password and host together are longer.
    assert redacted("postgres://ann:pa55@db.example.org/x") == "postgres://[SECRET_1]/x"


def test_of_two_findings_as_long_as_each_other_the_kind_that_comes_first_counts():
    # A card's number behind the word password: both have the same sixteen characters, and secrets come first.
    assert redacted("password: 5500000000000004") == "password: [SECRET_1]"
    assert redacted("the card: 5500000000000004") == "the card: [CARD_1]"


def test_a_value_that_another_one_hid_is_found_in_the_next_pass():
    # The longer secret takes the address's first half away; what is left of the text is searched again.
    text = redacted("sk-a1B2c3D4e5F6g7H8i9J0k1L2 ann@example.org sk-a1B2c3D4e5F6g7H8i9J0k1L2@example.org")
    assert text.count("SECRET") + text.count("EMAIL") == 3
    assert redacted(text) is text


def _staff_numbers(text: str, start: int, end: int):
    place = text.find("EMP-", start, end)
    if place >= 0:
        yield Span(place, place + 8)


def test_a_recogniser_of_ones_own_takes_part():
    staff = Recogniser("staff", Kind.NATIONAL_ID, _staff_numbers, marks=("EMP-",))
    assert Redactor(extra=[staff]).conversation().redact("ask EMP-0042 now") == "ask [NATIONAL_ID_1] now"
    assert Redactor(kinds=[Kind.EMAIL], extra=[staff]).conversation().redact("EMP-0042") == "EMP-0042"


def test_one_redactor_serves_many_threads():
    redactor = Redactor()

    def talk(number: int) -> str:
        return redactor.conversation().redact(f"user{number}@example.org or +49 30 1234{number:04}")

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(talk, range(400))) == {"[EMAIL_1] or [PHONE_1]"}
