"""A feedback token says yes to exactly what it was made for."""

import base64
import json
import secrets
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consent import Purpose
from schemas.feedback import FeedbackKind
from serving.core.errors import AccessRefused
from serving.core.tokens import SigningKey, TokenKeys, check_use, issue, verify

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
RESPONSE = "chatcmpl-" + "a" * 32
OTHER = "chatcmpl-" + "b" * 32


def key(kid: str, created: datetime) -> SigningKey:
    return SigningKey(kid=kid, secret=secrets.token_urlsafe(64), created=created)  # long enough for HS512 as well


OLD, NEW = key("old", NOW - 40 * DAY), key("new", NOW - 20 * DAY)
KEYS = TokenKeys(keys=(OLD, NEW))


def token(
    keys: TokenKeys = KEYS,
    *,
    now: datetime = NOW,
    actions: tuple[FeedbackKind, ...] = (FeedbackKind.THUMBS_UP, FeedbackKind.COMMENT),
    tenant: str | None = "acme",
    purposes: tuple[Purpose, ...] | None = (Purpose.TRAINING,),
) -> str:
    return issue(
        keys, response_id=RESPONSE, tenant=tenant, user="u1", purposes=purposes, actions=actions,
        lifetime=30 * DAY, now=now,
    )  # fmt: skip


def code_of(text: str, keys: TokenKeys = KEYS, *, now: datetime = NOW) -> tuple[str, int]:
    with pytest.raises(AccessRefused) as caught:
        verify(text, keys, now=now.timestamp())
    return caught.value.code, caught.value.status


def forged(claims: dict[str, object], headers: dict[str, object], secret: str = NEW.secret, alg: str = "HS256") -> str:
    """A token as somebody would write it who knows the form, and by default the secret too."""
    whole = {
        "iss": "thumbwheel", "aud": "feedback", "sub": RESPONSE, "act": ["thumbs_up"],
        "iat": int(NOW.timestamp()), "exp": int((NOW + DAY).timestamp()),
    } | claims  # fmt: skip
    known = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(known, secret, algorithm=alg, headers=headers)


def test_a_token_grants_what_it_was_made_for() -> None:
    grant = verify(token(), KEYS, now=NOW.timestamp())
    assert (grant.response_id, grant.tenant, grant.user) == (RESPONSE, "acme", "u1")
    assert grant.actions == {FeedbackKind.THUMBS_UP, FeedbackKind.COMMENT}
    assert (grant.purposes, grant.kid) == ((Purpose.TRAINING,), "new")
    assert grant.expires == int((NOW + 30 * DAY).timestamp())


def test_what_was_not_said_is_not_in_the_token_and_an_empty_consent_is() -> None:
    nothing = verify(token(tenant=None, purposes=None), KEYS, now=NOW.timestamp())
    assert (nothing.tenant, nothing.purposes) == (None, None)
    assert verify(token(purposes=()), KEYS, now=NOW.timestamp()).purposes == ()


def test_a_token_is_good_until_the_second_in_which_it_expires() -> None:
    made = token()
    assert verify(made, KEYS, now=(NOW + 30 * DAY - SECOND).timestamp())
    assert code_of(made, now=NOW + 30 * DAY) == ("token_expired", 401)


@pytest.mark.parametrize(
    "text",
    [
        "", "a.b.c", "..", "x" * 5000,
        forged({}, {"kid": "new"}, secret=secrets.token_urlsafe(32)),  # another secret
        forged({}, {"kid": "old"}),  # signed by one key, naming another
        forged({}, {"kid": "nobody"}),
        forged({}, {}),  # no kid
        forged({}, {"kid": "new"}, alg="HS512"),
        forged({"aud": "chat"}, {"kid": "new"}),
        forged({"iss": "somebody"}, {"kid": "new"}),
        forged({"exp": None}, {"kid": "new"}),
        forged({"sub": "7"}, {"kid": "new"}),
        forged({"act": ["applause"]}, {"kid": "new"}),
        forged({"exp": "tomorrow"}, {"kid": "new"}),
    ],
)  # fmt: skip
def test_what_is_not_ours_is_not_valid(text: str) -> None:
    assert code_of(text) == ("token_invalid", 401)


def test_the_forger_of_these_tests_can_write_a_good_token() -> None:
    # Otherwise the refusals above could all have one reason that has nothing to do with what they try.
    assert verify(forged({}, {"kid": "new"}), KEYS, now=NOW.timestamp()).response_id == RESPONSE


@pytest.mark.parametrize("signature", ["", "A" * 43])
def test_a_token_without_an_algorithm_is_not_valid(signature: str) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = jwt.decode(token(), options={"verify_signature": False})
    assert code_of(f"{part({'alg': 'none', 'kid': 'new'})}.{part(claims)}.{signature}") == ("token_invalid", 401)


def test_a_header_of_a_thousand_brackets_is_not_valid() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 2400).rstrip(b"=").decode()
    assert code_of(f"{deep}.e30.{'A' * 43}") == ("token_invalid", 401)


MADE = token()


@settings(max_examples=400)
@given(st.integers(0, len(MADE) - 1), st.characters(codec="utf-8"))
def test_a_token_with_any_character_altered_is_not_valid(position: int, character: str) -> None:
    altered = MADE[:position] + character + MADE[position + 1 :]
    if altered != MADE:
        assert code_of(altered) == ("token_invalid", 401)


def test_no_other_last_character_has_the_same_signature() -> None:
    # Two of its six bits are no part of the 32 bytes: decoders that pass over them take four spellings for one.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert [last for last in alphabet if last != MADE[-1] and code_of(MADE[:-1] + last) != ("token_invalid", 401)] == []


@given(st.integers(1, 60))
def test_a_token_cut_off_or_grown_is_not_valid(by: int) -> None:
    assert code_of(MADE[:-by]) == ("token_invalid", 401)
    assert code_of(MADE + "A" * by) == ("token_invalid", 401)


def test_a_token_is_for_one_response_and_the_permitted_kinds() -> None:
    grant = verify(token(), KEYS, now=NOW.timestamp())
    check_use(grant, response_id=RESPONSE, kind=FeedbackKind.COMMENT)
    check_use(grant, response_id=None, kind=FeedbackKind.COMMENT)
    for response, kind in ((OTHER, FeedbackKind.COMMENT), (RESPONSE, FeedbackKind.FLAG)):
        with pytest.raises(AccessRefused) as caught:
            check_use(grant, response_id=response, kind=kind)
        assert (caught.value.code, caught.value.status) == ("token_not_for_this", 403)


def test_the_newest_key_signs_once_every_gateway_can_know_it() -> None:
    fresh = key("fresh", NOW)
    keys = TokenKeys(keys=(OLD, NEW, fresh))
    assert keys.signing(NOW + 9 * SECOND).kid == "new"
    assert keys.signing(NOW + 10 * SECOND).kid == "fresh"


def test_a_key_that_is_alone_signs_at_once() -> None:
    assert TokenKeys(keys=(key("only", NOW),)).signing(NOW).kid == "only"


def test_a_rotation_keeps_old_tokens_good() -> None:
    made = token()
    rotated, retired = KEYS.rotated(key("fresh", NOW))
    assert retired == ()
    assert verify(made, rotated, now=NOW.timestamp()).kid == "new"


@pytest.mark.parametrize(
    ("retire_after", "retired"),
    # `old` stopped signing 20 days ago, when `new` was made; `new` stops now.
    [(21 * DAY, ()), (20 * DAY, ("old",)), (timedelta(0), ("old", "new"))],
)
def test_a_key_is_retired_by_the_time_since_it_stopped_signing(
    retire_after: timedelta, retired: tuple[str, ...]
) -> None:
    rotated, gone = KEYS.rotated(key("fresh", NOW), retire_after=retire_after)
    assert gone == retired
    assert {k.kid for k in rotated.keys} == {"old", "new", "fresh"} - set(retired)


def test_a_token_of_a_retired_key_is_not_valid() -> None:
    made = token(TokenKeys(keys=(OLD,)))
    rotated, _ = KEYS.rotated(key("fresh", NOW), retire_after=20 * DAY)
    assert code_of(made, rotated) == ("token_invalid", 401)


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="same kid"):
        TokenKeys(keys=(OLD, key("old", NOW)))


def test_a_key_does_not_show_its_secret() -> None:
    assert OLD.secret not in repr(KEYS)
