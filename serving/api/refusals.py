"""Every error as OpenAI's error object with the status that fits: what a client can mend is a 4xx."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.errors import BrokerUnavailable, ModelError, ThumbwheelError, UnknownVersion
from serving.core import replies
from serving.core.errors import PromptRefused, QueueFull
from serving.core.wire import RequestRefused

logger = logging.getLogger(__name__)

RETRY_SOON = {"retry-after": "1"}
RETRY_LATER = {"retry-after": "5"}


async def on_error(request: Request, error: Exception) -> Response:
    """The response for an error that a handler raised."""
    return refusal(error)


def refusal(error: Exception) -> JSONResponse:
    """The response for an error; what is not ours is logged and becomes a plain 500."""
    match error:
        case RequestRefused():
            body = replies.error(str(error), kind="invalid_request_error", code=error.code, param=error.param)
            return JSONResponse(body, error.status)
        case PromptRefused():
            body = replies.error(str(error), kind="invalid_request_error", code=error.code, param="messages")
            return JSONResponse(body, 400)
        case UnknownVersion():
            body = replies.error(str(error), kind="invalid_request_error", code="model_not_found", param="model")
            return JSONResponse(body, 404)
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
