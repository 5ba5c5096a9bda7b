"""The gateway as an ASGI application.

Observe (id, time, last net) ─► CrossOrigin ─► POST /v1/feedback ─► FeedbackEndpoint
                                            └► everything else ─► Starlette's routes
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.errors import ThumbwheelError
from serving.api.chat import chat
from serving.api.cross_origin import CrossOrigin
from serving.api.feedback import FeedbackEndpoint, feedback_batch
from serving.api.gateway import Gateway
from serving.api.health import healthz, metrics, models, readyz
from serving.api.observe import Observe
from serving.api.outputs import outputs
from serving.api.refusals import on_error
from serving.core.wire import RequestRefused

FEEDBACK = "/v1/feedback"


def create_app(gateway: Gateway) -> ASGIApp:
    """The routes, with every error as OpenAI's error object."""
    feedback = FeedbackEndpoint(gateway)
    rest = routed(gateway, feedback)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        direct = scope["type"] == "http" and scope["path"] == FEEDBACK and scope["method"] == "POST"
        await (feedback if direct else rest)(scope, receive, send)

    return Observe(CrossOrigin(dispatch, gateway.gatekeeper.policy.origins), gateway.metrics)


def routed(gateway: Gateway, feedback: FeedbackEndpoint) -> Starlette:
    """Every route there is; the one of the feedback is here for its other methods, which are refused."""
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route(FEEDBACK, feedback, methods=["POST"]),
            Route("/v1/feedback/batch", feedback_batch, methods=["POST"]),
            Route("/v1/outputs", outputs, methods=["POST"]),
            Route("/v1/models", models),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        exception_handlers={RequestRefused: on_error, ThumbwheelError: on_error, HTTPException: on_error},
    )
    app.state.gateway = gateway
    return app
