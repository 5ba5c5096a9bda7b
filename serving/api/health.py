"""`/healthz`, `/readyz`, `/metrics` and `GET /v1/models`."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.api.gateway import Gateway, asking_of, gateway_of
from serving.core import replies
from serving.core.access import Scope
from serving.core.routing import listed


async def healthz(request: Request) -> Response:
    """The process runs and its event loop turns."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Whether everything that the gateway needs is there; 503 with the reasons where it isn't.

    Answers flow also while the broker is away: this says whether they are recorded and versions followed.
    """
    gateway = gateway_of(request)
    problems = await asyncio.to_thread(_problems, gateway)
    # An old list of keys still serves: worth a look, but no reason to take every gateway out of service.
    files = gateway.gatekeeper.problems()
    live = gateway.keeper.board.live()
    body = {
        "status": "not_ready" if any(problems.values()) else "ready",
        "checks": {
            name: {"ok": problem is None, "detail": problem or ""} for name, problem in (problems | files).items()
        },
        "serving": gateway.keeper.serving,
        "live": live.version if live else None,
        "loaded": list(gateway.engine.loaded()),
        "events_waiting": gateway.outputs.waiting() + gateway.feedback.waiting(),
    }
    return JSONResponse(body, 503 if any(problems.values()) else 200)


def _problems(gateway: Gateway) -> dict[str, str | None]:
    waiting = "the version that should serve is being loaded" if not gateway.keeper.settled else None
    return {
        "broker": gateway.feedback.problem(),
        "model": None if gateway.engine.alive else "the engine has ended; start the gateway again",
        "version_feed": None if gateway.feed.caught_up else "the version topic was not read to its end yet",
        "live_version": gateway.keeper.problem() or waiting,
    }


async def metrics(request: Request) -> Response:
    """Open where the gateway can only be reached from its own machine; else for a key with the scope `models`."""
    gateway = gateway_of(request)
    if not gateway.gatekeeper.policy.loopback:
        gateway.gatekeeper.admit(asking_of(request), Scope.MODELS)
    gateway.metrics.buffered.set(gateway.outputs.waiting() + gateway.feedback.waiting())
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def models(request: Request) -> Response:
    gateway = gateway_of(request)
    gateway.gatekeeper.admit(asking_of(request), Scope.MODELS)
    names = listed(gateway.keeper.board, gateway.base_model_name, pin_rejected=gateway.pin_rejected)
    return JSONResponse(replies.models(names, gateway.started_at))
