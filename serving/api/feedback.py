"""`POST /v1/feedback`: acknowledged only when the broker has it.

The gateway keeps no list of responses: feedback for one that it never gave is taken as well, and is reported by
the join when its answer doesn't turn up.
"""

import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.envelope import MAX_VALUE_BYTES, Event, encode, new_event
from schemas.feedback import Feedback
from schemas.ids import new_event_id
from schemas.topics import FEEDBACK
from serving.api.body import read_body
from serving.api.gateway import SOURCE, gateway_of
from serving.core.wire import FeedbackRequest, RequestRefused, parse

logger = logging.getLogger(__name__)


async def feedback(request: Request) -> Response:
    gateway = gateway_of(request)
    said = parse(FeedbackRequest, await read_body(request, gateway.max_body_bytes))
    event = new_event(
        said.feedback(),
        source=SOURCE,
        id=_event_id(said.id, request.headers.get("idempotency-key")),
        traceparent=request.state.traceparent,
    )
    _check_size(event)
    await gateway.feedback.publish_acknowledged(FEEDBACK, event, gateway.feedback_timeout_seconds)
    ids = {"event_id": event.id, "response_id": said.response_id, "request_id": request.state.request_id}
    logger.info("feedback recorded", extra=ids | {"kind": said.kind.value})
    return JSONResponse({"id": event.id, "response_id": said.response_id, "status": "recorded"}, 201)


def _event_id(in_body: str | None, in_header: str | None) -> str:
    """The id under which a retry counts once; raises `RequestRefused` where two were given."""
    if in_header is not None and not 1 <= len(in_header) <= 200:
        raise RequestRefused("Idempotency-Key must have 1 to 200 characters", code="invalid_value")
    if in_body and in_header and in_body != in_header:
        raise RequestRefused("id and Idempotency-Key differ; send one of them", code="invalid_value", param="id")
    return in_body or in_header or new_event_id()


def _check_size(event: Event[Feedback]) -> None:
    # A tenth is left for the record's key, headers and framing, which count towards the broker's limit.
    size = len(encode(event).value)
    if size > MAX_VALUE_BYTES * 9 // 10:
        raise RequestRefused(
            f"the feedback has {size} bytes as an event, too many", code="request_too_large", status=413
        )
