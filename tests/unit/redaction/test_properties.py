"""What holds for every text."""

import string
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from thumbwheel_redaction import Kind, Redactor
from thumbwheel_redaction.findings import Finding, resolve
from thumbwheel_redaction.folding import fold

REDACTOR = Redactor()

_VALUES = st.sampled_from(
    """ann@example.org|+49 30 12345678|(415) 555-0132|4111 1111 1111 1111|DE89370400440532013000|123-45-6789
AB 12 34 56 C|86095742719|12345678Z|RSSMRA85T10A562S|203.0.113.7|2001:db8::1|AKIAIOSFODNN7EXAMPLE|SSN|BSN|[SECRET_2]
sk-a1B2c3D4e5F6g7H8i9J0k1|password=|password is |hunter2|token: |Bearer |abcdefghijklmnop1234|://ann:pa55@|dot| at
db.example.org|eyJhbGciOiJIUzI1NiJ9.eyJz.c2ln|-----BEGIN PRIVATE KEY-----|-----END PRIVATE KEY-----|(at)|[EMAIL_1]
call|order|00|+|0|1|٣|４|\u200b|\u00a0""".replace("\n", "|").split("|")
)
_FRAGMENTS = st.one_of(_VALUES, st.text(max_size=6), st.text(string.digits + " .-/()+:@=", max_size=12))
TEXTS = st.lists(_FRAGMENTS, max_size=12).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example("1 1@a.bc12")
def test_to_redact_twice_changes_nothing(text: str):
    talk = REDACTOR.conversation()
    once = talk.redact(text)
    assert talk.redact(once) is once
    assert REDACTOR.conversation().redact(once) is once


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_nothing_that_was_found_is_found_in_the_outcome(text: str):
    assert REDACTOR.find(REDACTOR.conversation().redact(text)) == []


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_the_outcome_is_the_text_with_placeholders_for_what_was_found(text: str):
    talk = REDACTOR.conversation()
    findings = REDACTOR.find(text)
    kept = [
        text[a:b]
        for a, b in zip([0, *(f.end for f in findings)], [*(f.start for f in findings), len(text)], strict=True)
    ]
    once = talk.redact(text)
    if not findings:
        assert once is text
    elif talk.found.keys() == {f.kind for f in findings} and sum(talk.found.values()) == len(findings):
        place = 0  # one pass: everything that wasn't found stands there still, in its order
        for part in kept:
            place = once.index(part, place) + len(part)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_no_text_is_too_strange(text: str):
    REDACTOR.conversation().redact(text)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_surrogates_and_unassigned_characters_do_no_harm(text: str):
    assert REDACTOR.conversation().redact(f"{text} ann@example.org").count("[EMAIL_") >= 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a@example.org", "b@example.org", "A@Example.org"]), min_size=1, max_size=8))
def test_the_same_value_has_the_same_placeholder_throughout(addresses: list[str]):
    talk = REDACTOR.conversation()
    given_out: dict[str, str] = {}
    for address in addresses:
        placeholder = talk.redact(address)
        assert given_out.setdefault(address.lower(), placeholder) == placeholder
    assert len(set(given_out.values())) == len(given_out)


@settings(max_examples=200, deadline=None)
@given(st.text(string.ascii_lowercase + " ,;!?", max_size=300))
def test_text_without_anything_comes_back_as_the_same_object(text: str):
    assert REDACTOR.conversation().redact(text) is text


_FINDINGS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 12), st.sampled_from(list(Kind))).map(
        lambda f: Finding(f[0], f[0] + f[1], f[2])
    ),
    max_size=12,
)


@settings(deadline=None)
@given(_FINDINGS, st.randoms(use_true_random=False))
def test_overlaps_are_resolved_alike_in_whatever_order_they_were_found(findings: list[Finding], random):
    resolved = resolve(findings)
    shuffled = list(findings)
    random.shuffle(shuffled)
    assert resolve(shuffled) == resolved
    assert all(one.end <= two.start for one, two in pairwise(resolved))
    for finding in findings:  # whatever was dropped overlaps one that ranks at least as high
        assert finding in resolved or any(
            kept.start < finding.end
            and finding.start < kept.end
            and (kept.kind is Kind.NAME, kept.start - kept.end)
            <= (finding.kind is Kind.NAME, finding.start - finding.end)
            for kept in resolved
        )


@settings(deadline=None)
@given(st.text(max_size=60), st.data())
def test_every_place_in_a_folded_text_comes_from_somewhere(text: str, data: st.DataObject):
    folded = fold(text)
    if not folded.text:
        return
    start = data.draw(st.integers(0, len(folded.text) - 1))
    end = data.draw(st.integers(start + 1, len(folded.text)))
    place = folded.in_original(start, end)
    assert 0 <= place.start < place.end <= len(text)
    assert folded.text[start:end] in fold(text[place.start : place.end]).text
