"""`POST /v1/feedback` and `/v1/feedback/batch`: acknowledged only when the broker has it.

    who asks (key, or to be seen by the token) ─► body ─► terms ─► personal data out ─► event ─► broker ─► 201

The gateway keeps no list of responses: feedback for one that it never gave is taken as well, and is reported by
the join when its answer doesn't turn up. The body is read as JSON whatever its content type says: a browser's
`sendBeacon` sends text/plain, because anything else would first need a permission that a closing page has no time for.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from schemas.envelope import Event, new_event
from schemas.errors import ThumbwheelError
from schemas.feedback import Feedback
from schemas.ids import new_event_id
from schemas.topics import FEEDBACK
from serving.api.body import read, read_body
from serving.api.gateway import SOURCE, Gateway, asking_of, asking_of_headers, gateway_of
from serving.api.refusals import answer_to, count_refusal, refusal_body
from serving.core import replies
from serving.core.access import Caller
from serving.core.errors import AccessRefused, EventTooLarge
from serving.core.moments import moment_of
from serving.core.records import BatchRequest, FeedbackRequest
from serving.core.terms import Terms, terms_of
from serving.core.wire import RequestRefused, parse, refused_by

logger = logging.getLogger(__name__)

Refused = RequestRefused | AccessRefused | EventTooLarge
"""Why one item of a batch was not taken, while others were."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A piece of feedback on its way to the broker. `id` is the one that the client gave or is told."""

    id: str
    event: Event[Feedback]

    def reply(self) -> replies.Json:
        return replies.recorded_feedback(self.id, self.event.data.response_id)


class FeedbackEndpoint:
    """`POST /v1/feedback` as a plain ASGI application.

    Most requests of a gateway are thumbs, and most of what a framework does for one is of no use to it: this way a
    gateway takes twice as many.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            taken = await self._take(scope, headers, receive)
        except (RequestRefused, ThumbwheelError) as error:
            await answer_to(error, self._gateway.metrics)(scope, receive, send)
            return
        body = to_json(taken.reply())
        about = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 201, "headers": about})
        await send({"type": "http.response.body", "body": body})

    async def _take(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Taken:
        gateway, asking = self._gateway, asking_of_headers(headers, scope.get("client"))
        caller = gateway.gatekeeper.visitor(asking)
        announced = headers.get(b"content-length", b"").decode("latin-1")
        said = parse(FeedbackRequest, await read(receive, announced, gateway.max_body_bytes))
        token = said.token or (None if caller.key else asking.token)
        if token is None and caller.open:
            gateway.gatekeeper.check_origin(asking)
        terms = _terms(gateway, said, caller, token)
        key, traceparent = headers.get(b"idempotency-key"), scope["state"]["traceparent"]
        given_id = _given_id(said.id, None if key is None else key.decode("latin-1"))
        if gateway.redaction.takes_long(len(said.text or "")):
            taken = await asyncio.to_thread(_taken, gateway, said, terms, given_id, traceparent)
        else:
            taken = _taken(gateway, said, terms, given_id, traceparent)
        await gateway.feedback.publish_acknowledged(FEEDBACK, taken.event, gateway.feedback_timeout_seconds)
        # A line for each would cost a third of the whole; the event is on the log.
        if logger.isEnabledFor(logging.DEBUG):
            ids = {"event_id": taken.event.id, "response_id": terms.response_id, "kind": said.kind.value}
            logger.debug("feedback recorded", extra=ids | {"request_id": scope["state"]["request_id"]})
        return taken


async def feedback_batch(request: Request) -> Response:
    """Each item has an answer of its own, in their order; 503 as a whole where the broker doesn't answer."""
    gateway, asking = gateway_of(request), asking_of(request)
    caller = gateway.gatekeeper.visitor(asking)
    if caller.open:
        gateway.gatekeeper.check_origin(asking)
    items = parse(BatchRequest, await read_body(request, gateway.max_body_bytes)).items
    gateway.gatekeeper.count_more(asking, caller, len(items) - 1)
    traceparent = request.state.traceparent
    read = await gateway.redaction.without_blocking(
        sum(len(str(item)) for item in items), lambda: [_item(gateway, item, caller, traceparent) for item in items]
    )
    events = [item.event for item in read if isinstance(item, Taken)]
    sizes = await gateway.feedback.publish_all_acknowledged(FEEDBACK, events, gateway.feedback_timeout_seconds)
    fates = iter(sizes)
    results = [(next(fates) or item) if isinstance(item, Taken) else item for item in read]
    for result in results:
        if isinstance(result, AccessRefused):
            count_refusal(gateway.metrics, result)
    recorded = sum(isinstance(result, Taken) for result in results)
    extra = {"request_id": request.state.request_id, "recorded": recorded, "refused": len(results) - recorded}
    logger.info("feedback batch recorded", extra=extra)
    bodies = [result.reply() if isinstance(result, Taken) else refusal_body(result) for result in results]
    return JSONResponse({"results": bodies})


def _item(gateway: Gateway, item: object, caller: Caller, traceparent: str) -> Taken | Refused:
    """One item of a batch, read as if it had come alone."""
    try:
        said = parse(FeedbackRequest, json.dumps(item).encode())
        terms = _terms(gateway, said, caller, said.token)
        return _taken(gateway, said, terms, said.id, traceparent)
    except (RequestRefused, AccessRefused) as refused:
        return refused


def _terms(gateway: Gateway, said: FeedbackRequest, caller: Caller, token: str | None) -> Terms:
    grant = gateway.gatekeeper.grant(token) if token is not None else None
    return terms_of(said, caller, grant, default=gateway.default_purposes)


def _taken(gateway: Gateway, said: FeedbackRequest, terms: Terms, given_id: str | None, traceparent: str) -> Taken:
    """The event, without personal data; raises `RequestRefused` where it got too long by that, or is too old."""
    redaction = gateway.redaction
    time = moment_of(said.occurred_at, datetime.now(UTC), oldest=gateway.oldest_feedback)
    try:
        payload = Feedback(
            response_id=terms.response_id,
            kind=said.kind,
            text=None if said.text is None else redaction.texts((said.text,))[0],
            user_id=redaction.user(terms.user),
            tenant=terms.tenant,
            purposes=terms.purposes,
            credential=terms.credential,
        )
    except ValidationError as error:
        raise refused_by(error) from error
    event_id = new_event_id() if given_id is None else redaction.event_id(given_id)
    event = new_event(payload, source=SOURCE, id=event_id, time=time, traceparent=traceparent)
    return Taken(given_id or event_id, event)


def _given_id(in_body: str | None, in_header: str | None) -> str | None:
    """The id under which a retry counts once, if there is one; raises `RequestRefused` where two were given."""
    if in_header is not None and not 1 <= len(in_header) <= 200:
        raise RequestRefused("Idempotency-Key must have 1 to 200 characters", code="invalid_value")
    if in_body and in_header and in_body != in_header:
        raise RequestRefused("id and Idempotency-Key differ; send one of them", code="invalid_value", param="id")
    return in_body or in_header
