"""Which version answers: the live one, or the one that a request pins by `thumbwheel:<version>`."""

from collections.abc import Collection
from dataclasses import dataclass

from schemas.errors import UnknownVersion
from schemas.versions import BASE_VERSION, Board, VersionState

PUBLIC_NAME = "thumbwheel"


@dataclass(frozen=True, slots=True)
class Route:
    """The version that answers, and the chance with which the router chose it for this request."""

    version: str
    probability: float
    pinned: bool


def model_name(version: str) -> str:
    """The name under which a response tells its version."""
    return f"{PUBLIC_NAME}:{version}"


def preference(board: Board) -> tuple[str, ...]:
    """The versions that may serve unpinned traffic, the most wanted first; the base is always the last resort.

    Live ones come first, the latest of them leading, then those retired, the latest leading: what a
    gateway falls back on when the adapter of a better one is damaged.
    """
    by_state = {
        state: [name for name, s in board.standings.items() if s.state is state][::-1]
        for state in (VersionState.LIVE, VersionState.RETIRED)
    }
    wanted = [*by_state[VersionState.LIVE], *by_state[VersionState.RETIRED]]
    return (*(name for name in wanted if name != BASE_VERSION or name in by_state[VersionState.LIVE]), BASE_VERSION)


@dataclass(frozen=True, slots=True)
class Service:
    """Who serves unpinned traffic now, and which version should be loaded next, if any."""

    serving: str
    load: str | None


def service(board: Board, *, loaded: Collection[str], failed: Collection[str], current: str) -> Service:
    """Keep answering with `current` until the most wanted version that can be loaded is in memory."""
    for version in preference(board):
        if version in loaded:
            return Service(version, None)
        if version not in failed:
            return Service(current if current in loaded else BASE_VERSION, version)
    return Service(BASE_VERSION, None)


def route(model: str, *, board: Board, serving: str, base_model_name: str, pin_rejected: bool = False) -> Route:
    """The version for a request that names `model`; raises `UnknownVersion` where there is none by that name."""
    if model in (PUBLIC_NAME, base_model_name):
        return Route(serving, 1.0, pinned=False)
    prefix, _, version = model.partition(":")
    if prefix != PUBLIC_NAME or not version:
        raise UnknownVersion(
            f"the model {model!r} does not exist; use {PUBLIC_NAME!r} for the live version"
            f" or '{PUBLIC_NAME}:<version>' for a certain one (GET /v1/models lists them)"
        )
    if version != BASE_VERSION and not _may_be_pinned(version, board, pin_rejected):
        raise UnknownVersion(f"the model {model!r} does not exist or never passed its gates; see GET /v1/models")
    return Route(version, 1.0, pinned=True)


def listed(board: Board, base_model_name: str, *, pin_rejected: bool = False) -> tuple[str, ...]:
    """The model names that a request may use."""
    versions = [v for v in board.standings if v != BASE_VERSION and _may_be_pinned(v, board, pin_rejected)]
    return (PUBLIC_NAME, base_model_name, model_name(BASE_VERSION), *map(model_name, versions))


def _may_be_pinned(version: str, board: Board, pin_rejected: bool) -> bool:
    state = board.state(version)
    return state is not None and (pin_rejected or state is not VersionState.REJECTED)
