"""The gateway as an ASGI application."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from schemas.errors import ThumbwheelError
from serving.api.chat import chat
from serving.api.feedback import feedback
from serving.api.gateway import Gateway
from serving.api.health import healthz, metrics, models, readyz
from serving.api.observe import Observe
from serving.api.refusals import on_error
from serving.core.wire import RequestRefused


def create_app(gateway: Gateway) -> Starlette:
    """The routes, with every error as OpenAI's error object."""
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/feedback", feedback, methods=["POST"]),
            Route("/v1/models", models),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        middleware=[Middleware(Observe, metrics=gateway.metrics)],
        exception_handlers={RequestRefused: on_error, ThumbwheelError: on_error, HTTPException: on_error},
    )
    app.state.gateway = gateway
    return app
