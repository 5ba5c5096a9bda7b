"""API keys, rates, pseudonyms and the terms of feedback: the decisions, without files or HTTP."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.consent import EVERY_PURPOSE, Purpose
from schemas.feedback import FeedbackKind
from serving.adapters.keys import new_api_key
from serving.core.access import (
    AccessMode,
    ApiKey,
    ApiKeys,
    Caller,
    Scope,
    authenticate,
    check_scope,
    keys_required,
)
from serving.core.errors import AccessRefused
from serving.core.metadata import purposes_in
from serving.core.pseudonyms import is_personal, protected, pseudonym
from serving.core.rates import Rates, network_of
from serving.core.records import FeedbackRequest
from serving.core.terms import Terms, terms_of
from serving.core.tokens import Grant
from serving.core.wire import RequestRefused

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
RESPONSE, OTHER = "chatcmpl-" + "a" * 32, "chatcmpl-" + "b" * 32


def made(
    scopes: tuple[Scope, ...] = tuple(Scope), *, tenant: str | None = None, expires: datetime | None = None
) -> tuple[ApiKey, str]:
    return new_api_key(name="app", scopes=scopes, tenant=tenant, rate=None, expires=expires, now=NOW)


def refusal(text: str, keys: ApiKeys, now: datetime = NOW) -> AccessRefused:
    with pytest.raises(AccessRefused) as caught:
        authenticate(text, keys, now=now)
    return caught.value


def test_a_key_is_known_by_its_secret_and_only_the_hash_is_kept() -> None:
    key, text = made()
    assert text.startswith(f"twk_{key.id}_")
    assert authenticate(text, ApiKeys(keys=(key,)), now=NOW) is key
    secret = text.split("_")[2]
    assert len(secret) == 64  # 256 bits, in hexadecimal
    assert secret not in key.model_dump_json()


def test_a_wrong_key_is_refused_in_the_same_words_whatever_is_wrong() -> None:
    (key, text), (other, other_text) = made(), made()
    keys = ApiKeys(keys=(key, other))
    mixed = f"twk_{key.id}_{other_text.split('_')[2]}"
    wrong = (mixed, "twk_", "twk_x_y", text[:-1], text + "0", text.upper(), text + "\n")
    said = [refusal(presented, keys) for presented in wrong]
    said += [refusal(text, ApiKeys())]
    said += [refusal(text, ApiKeys(keys=(key.model_copy(update={"revoked": NOW - DAY}),)))]
    assert {(error.code, error.status, str(error)) for error in said} == {("invalid_api_key", 401, str(said[0]))}


def test_a_key_is_good_until_it_expires() -> None:
    key, text = made(expires=NOW + DAY)
    keys = ApiKeys(keys=(key,))
    assert authenticate(text, keys, now=NOW + DAY - timedelta(seconds=1)) is key
    assert refusal(text, keys, NOW + DAY).code == "invalid_api_key"


def test_a_key_may_be_used_for_its_scopes_alone() -> None:
    key, _ = made((Scope.FEEDBACK,))
    check_scope(key, Scope.FEEDBACK)
    with pytest.raises(AccessRefused) as caught:
        check_scope(key, Scope.CHAT)
    assert (caught.value.code, caught.value.status) == ("insufficient_scope", 403)


@pytest.mark.parametrize(
    ("mode", "loopback", "any_key", "required"),
    [
        (AccessMode.AUTO, True, False, False),
        (AccessMode.AUTO, True, True, True),
        (AccessMode.AUTO, False, False, True),
        (AccessMode.AUTO, False, True, True),
        (AccessMode.REQUIRED, True, False, True),
        (AccessMode.OPEN, False, True, False),
    ],
)
def test_when_keys_are_required(mode: AccessMode, loopback: bool, any_key: bool, required: bool) -> None:
    assert keys_required(mode, loopback=loopback, any_key=any_key) is required


def test_a_caller_may_spend_a_minutes_worth_at_once_and_then_goes_at_the_rate() -> None:
    rates = Rates()
    assert [rates.take("a", per_minute=3, now=100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    # One is worth 20 seconds: the bucket is empty, the next one is there in 20 s.
    assert rates.take("a", per_minute=3, now=100.0) == pytest.approx(20.0)
    assert rates.take("a", per_minute=3, now=115.0) == pytest.approx(5.0)
    assert rates.take("a", per_minute=3, now=120.0) == 0.0
    assert rates.take("a", per_minute=3, now=120.0) == pytest.approx(20.0)
    assert rates.take("b", per_minute=3, now=120.0) == 0.0


def test_a_request_of_many_items_costs_as_much_as_they_do_alone() -> None:
    rates = Rates()
    assert rates.take("a", per_minute=60, now=0.0, cost=59) == 0.0
    assert rates.take("a", per_minute=60, now=0.0, cost=2) == pytest.approx(1.0)
    assert rates.take("b", per_minute=60, now=0.0, cost=500) == 0.0
    assert rates.take("b", per_minute=60, now=59.0) == pytest.approx(0.0, abs=1e-6)


def test_the_memory_for_rates_is_bounded_and_the_quiet_are_forgotten_first() -> None:
    rates = Rates(max_callers=100)
    rates.take("busy", per_minute=1, now=0.0)
    for n in range(1000):
        rates.take(f"visitor {n}", per_minute=10, now=0.0)
        assert len(rates) <= 100
    assert rates.take("visitor 999", per_minute=10, now=0.0, cost=10) > 0  # still known
    assert rates.take("busy", per_minute=1, now=0.0) == 0.0  # forgotten, and so forgiven


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.integers(1, 50))
def test_no_minute_ever_sees_more_than_twice_the_rate(gaps: list[float], per_minute: int) -> None:
    rates, now, passed = Rates(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        if rates.take("a", per_minute=per_minute, now=now) == 0.0:
            passed.append(now)
    assert all(sum(begin <= at < begin + 60 for at in passed) <= 2 * per_minute for begin in passed)


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("testclient", "testclient"),
    ],
)
def test_what_counts_as_one_address(address: str, caller: str) -> None:
    assert network_of(address) == caller


@pytest.mark.parametrize(
    "user", ["ann@example.org", "mailto:ann@example.org", "+49 30 1234567", "10.0.0.1", "2001:db8::1"]
)
def test_an_address_as_a_user_id_does_not_stay(user: str) -> None:
    kept = protected(user, b"key")
    assert kept is not None
    assert kept.startswith("user-")
    assert len(kept) == 5 + 32
    assert is_personal(kept) is False  # once more changes nothing


@pytest.mark.parametrize("user", ["u1", "4711", "user-17", "a@b", "@ann", "+17", "1.2", "ann at example.org"])
def test_any_other_user_id_stays(user: str) -> None:
    assert protected(user, b"key") == user


def test_a_pseudonym_is_the_same_for_the_same_user_and_another_under_another_key() -> None:
    assert pseudonym("Ann@Example.org ", b"key") == pseudonym("ann@example.org", b"key")
    assert len({pseudonym(user, key) for user in ("ann@example.org", "bob@example.org") for key in (b"1", b"2")}) == 4


@pytest.mark.parametrize(
    ("said", "agreed"),
    [
        (None, None),
        ("none", ()),
        ("training", (Purpose.TRAINING,)),
        ("labeling, training,training", (Purpose.TRAINING, Purpose.LABELING)),
    ],
)
def test_how_purposes_are_said_in_metadata(said: str | None, agreed: tuple[Purpose, ...] | None) -> None:
    assert purposes_in({} if said is None else {"purposes": said}) == agreed


@pytest.mark.parametrize("said", ["", "all", "training;labeling", "none,training"])
def test_purposes_that_nobody_knows_are_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"metadata\.purposes"):
        purposes_in({"purposes": said})


OPEN, STRANGER = Caller(None, open=True), Caller(None, open=False)


def say(**more: object) -> FeedbackRequest:
    return FeedbackRequest.model_validate({"kind": "thumbs_up"} | more, strict=False)


def granted(
    *, tenant: str | None = "acme", user: str | None = "u1", purposes: tuple[Purpose, ...] | None = None
) -> Grant:
    return Grant(RESPONSE, tenant, user, frozenset({FeedbackKind.THUMBS_UP}), purposes, 0, "k1")


def agreed(said: FeedbackRequest, caller: Caller, grant: Grant | None) -> Terms:
    return terms_of(said, caller, grant, default=EVERY_PURPOSE)


def test_with_a_token_its_response_its_user_and_its_tenant_count() -> None:
    terms = agreed(say(user="somebody"), STRANGER, granted())
    assert terms == Terms(RESPONSE, "u1", "acme", EVERY_PURPOSE, "token:k1")


def test_a_stranger_is_not_believed_who_the_user_is() -> None:
    assert agreed(say(user="somebody"), STRANGER, granted(user=None)).user is None
    key, _ = made(tenant="acme")
    assert agreed(say(user="somebody"), Caller(key, open=False), granted(user=None)).user == "somebody"


def test_a_token_of_one_tenant_does_not_go_with_the_key_of_another() -> None:
    for tenant in ("globex", None):
        key, _ = made(tenant=tenant)
        with pytest.raises(AccessRefused) as caught:
            agreed(say(), Caller(key, open=False), granted(tenant="acme"))
        assert caught.value.code == "token_not_for_this"


def test_with_a_key_it_says_itself_whose_thumb_it_is() -> None:
    key, _ = made(tenant="acme")
    terms = agreed(say(response_id=OTHER, user="u9"), Caller(key, open=False), None)
    assert terms == Terms(OTHER, "u9", "acme", EVERY_PURPOSE, key.id)


def test_an_open_gateway_believes_what_it_is_told() -> None:
    assert agreed(say(response_id=OTHER, user="u9"), OPEN, None) == Terms(OTHER, "u9", None, EVERY_PURPOSE, None)


def test_without_key_and_token_a_stranger_is_refused() -> None:
    with pytest.raises(AccessRefused) as caught:
        agreed(say(response_id=OTHER), STRANGER, None)
    assert caught.value.code == "invalid_api_key"


def test_without_a_token_the_response_must_be_named() -> None:
    with pytest.raises(RequestRefused) as caught:
        agreed(say(), OPEN, None)
    assert (caught.value.code, caught.value.param) == ("missing_field", "response_id")


@pytest.mark.parametrize(
    ("granted_to", "said", "kept"),
    [
        (None, None, EVERY_PURPOSE),
        (None, ["training"], (Purpose.TRAINING,)),
        ((Purpose.LABELING,), None, (Purpose.LABELING,)),
        ((Purpose.LABELING,), ["training", "labeling"], (Purpose.LABELING,)),
        ((), ["training", "labeling"], ()),
        (EVERY_PURPOSE, [], ()),
    ],
)
def test_a_body_can_narrow_what_the_token_agreed_to_but_not_widen_it(
    granted_to: tuple[Purpose, ...] | None, said: list[str] | None, kept: tuple[Purpose, ...]
) -> None:
    body = say() if said is None else say(purposes=said)
    assert agreed(body, STRANGER, granted(purposes=granted_to)).purposes == kept
