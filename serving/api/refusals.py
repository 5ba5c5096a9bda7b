"""Every error as OpenAI's error object with the status that fits: what a client can mend is a 4xx."""

import logging
import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.errors import BrokerUnavailable, ModelError, ThumbwheelError, UnknownVersion
from serving.adapters.metrics import GatewayMetrics
from serving.api.gateway import gateway_of
from serving.core import replies
from serving.core.errors import AccessRefused, EventTooLarge, PromptRefused, QueueFull, RateLimited
from serving.core.wire import RequestRefused

logger = logging.getLogger(__name__)

RATE_LIMITED = "rate_limited"
TOO_LARGE = "request_too_large"
ASK_FOR_KEY = {"www-authenticate": "Bearer"}
RETRY_SOON = {"retry-after": "1"}
RETRY_LATER = {"retry-after": "5"}


async def on_error(request: Request, error: Exception) -> Response:
    """The response for an error that a handler raised."""
    return answer_to(error, gateway_of(request).metrics)


def answer_to(error: Exception, metrics: GatewayMetrics) -> Response:
    """The response for an error; who was turned away is counted."""
    if isinstance(error, AccessRefused | RateLimited):
        count_refusal(metrics, error)
    return refusal(error)


def count_refusal(metrics: GatewayMetrics, error: AccessRefused | RateLimited) -> None:
    """Count a caller who was turned away."""
    metrics.refused.labels(error.code if isinstance(error, AccessRefused) else RATE_LIMITED).inc()


def refusal_body(error: RequestRefused | AccessRefused | EventTooLarge) -> replies.Json:
    """The error object for what a client can mend."""
    param = error.param if isinstance(error, RequestRefused) else None
    code = TOO_LARGE if isinstance(error, EventTooLarge) else error.code
    return replies.error(str(error), kind="invalid_request_error", code=code, param=param)


def refusal(error: Exception) -> JSONResponse:
    """The response for an error; what is not ours is logged and becomes a plain 500."""
    match error:
        case RequestRefused():
            return JSONResponse(refusal_body(error), error.status)
        case PromptRefused():
            body = replies.error(str(error), kind="invalid_request_error", code=error.code, param="messages")
            return JSONResponse(body, 400)
        case UnknownVersion():
            body = replies.error(str(error), kind="invalid_request_error", code="model_not_found", param="model")
            return JSONResponse(body, 404)
        case AccessRefused():
            return JSONResponse(refusal_body(error), error.status, ASK_FOR_KEY if error.status == 401 else None)
        case RateLimited():
            body = replies.error(str(error), kind="rate_limit_error", code=RATE_LIMITED)
            return JSONResponse(body, 429, {"retry-after": str(math.ceil(error.retry_after))})
        case EventTooLarge():
            return JSONResponse(refusal_body(error), 413)
        case QueueFull():
            body = replies.error(str(error), kind="rate_limit_error", code="queue_full")
            return JSONResponse(body, 429, RETRY_SOON)
        case BrokerUnavailable():
            body = replies.error(str(error), kind="server_error", code="log_unavailable")
            return JSONResponse(body, 503, RETRY_LATER)
        case ModelError():
            body = replies.error(str(error), kind="server_error", code="engine_unavailable")
            return JSONResponse(body, 503, RETRY_SOON)
        case HTTPException():
            return _http(error)
        case _:
            return _unexpected(error)


def _http(error: HTTPException) -> JSONResponse:
    texts = {404: "there is nothing at this path", 405: "this path does not answer to this method"}
    message = texts.get(error.status_code, error.detail)
    body = replies.error(message, kind="invalid_request_error", code=f"http_{error.status_code}")
    return JSONResponse(body, error.status_code, error.headers)


def _unexpected(error: Exception) -> JSONResponse:
    logger.error("unexpected error", exc_info=error)
    message = str(error) if isinstance(error, ThumbwheelError) else "an unexpected error; the log has the details"
    return JSONResponse(replies.error(message, kind="server_error", code="internal_error"), 500)
