"""On what terms feedback is taken: for which response, in whose name, under which consent. Pure."""

from dataclasses import dataclass

from schemas.consent import Purposes
from serving.core.access import Caller, no_key
from serving.core.metadata import in_order
from serving.core.records import FeedbackRequest
from serving.core.tokens import Grant, check_use, not_for_this
from serving.core.wire import RequestRefused


@dataclass(frozen=True, slots=True)
class Terms:
    """What is written beside a piece of feedback. `credential`: an API key's id, or `token:<kid>`."""

    response_id: str
    user: str | None
    tenant: str | None
    purposes: Purposes
    credential: str | None


def terms_of(said: FeedbackRequest, caller: Caller, grant: Grant | None, *, default: Purposes) -> Terms:
    """The terms of `said`; raises `AccessRefused` or `RequestRefused`.

    A token speaks for its user and its consent: the user in the body counts only where the token names none and the
    caller is trusted, and purposes can be narrowed by the body, never widened.
    """
    if grant is None:
        return _without_token(said, caller, default)
    check_use(grant, response_id=said.response_id, kind=said.kind)
    if caller.key is not None and caller.key.tenant != grant.tenant:
        raise not_for_this("the feedback token belongs to another tenant than the API key")
    return Terms(
        response_id=grant.response_id,
        user=grant.user or (said.user if caller.trusted else None),
        tenant=grant.tenant,
        purposes=_narrowed(grant.purposes, said.purposes, default),
        credential=caller.credential or f"token:{grant.kid}",
    )


def _without_token(said: FeedbackRequest, caller: Caller, default: Purposes) -> Terms:
    if not caller.trusted:
        raise no_key("feedback needs an API key, or the feedback token that came with the answer")
    if said.response_id is None:
        raise RequestRefused("response_id: Field required", code="missing_field", param="response_id")
    purposes = default if said.purposes is None else in_order(said.purposes)
    return Terms(said.response_id, said.user, caller.tenant, purposes, caller.credential)


def _narrowed(granted: Purposes | None, said: Purposes | None, default: Purposes) -> Purposes:
    agreed = default if granted is None else granted
    return agreed if said is None else in_order(set(agreed) & set(said))
