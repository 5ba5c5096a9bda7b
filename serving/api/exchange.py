"""One request for an answer and what is remembered of it: decoded, routed, and in the end recorded."""

import logging
import re
import time
from dataclasses import dataclass

from schemas.envelope import new_event
from schemas.ids import RESPONSE_ID_PATTERN, new_response_id, prompt_id
from schemas.outputs import FinishReason, Output
from schemas.topics import OUTPUTS
from serving.api.gateway import SOURCE, Gateway
from serving.core.generation import Job, Piece, Sampling
from serving.core.replies import Head
from serving.core.routing import Route, route
from serving.core.wire import ChatRequest, RequestRefused, sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exchange:
    """A request on its way to an answer. `started` is in `time.perf_counter` seconds."""

    gateway: Gateway
    asked: ChatRequest
    sampling: Sampling
    route: Route
    response_id: str
    created: int
    started: float
    request_id: str
    traceparent: str

    @property
    def head(self) -> Head:
        return Head(self.response_id, self.created, self.route.version)

    @property
    def job(self) -> Job:
        return Job(self.response_id, self.route.version, self.asked.chat_messages(), self.sampling)

    def seconds(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self.started

    def record(self, completion: str, last: Piece, finish_reason: FinishReason) -> bool:
        """Emit the answer as an event and log it; whether it was emitted. Never waits for the broker."""
        recorded = self.asked.store is not False and self._emit(completion, last, finish_reason)
        extra = {
            "request_id": self.request_id,
            "response_id": self.response_id,
            "version": self.route.version,
            "input_tokens": last.input_tokens,
            "output_tokens": last.output_tokens,
            "finish_reason": finish_reason,
            "seconds": round(self.seconds(), 3),
            "recorded": recorded,
        }
        logger.info("answered", extra=extra)
        return recorded

    def _emit(self, completion: str, last: Piece, finish_reason: FinishReason) -> bool:
        messages = self.asked.chat_messages()
        output = Output(
            response_id=self.response_id,
            prompt_id=prompt_id(messages),
            prompt=messages,
            completion=completion,
            version=self.route.version,
            base_model=self.gateway.base_model_name,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_completion_tokens=self.sampling.max_tokens,
            seed=self.sampling.seed,
            routing_probability=self.route.probability,
            finish_reason=finish_reason,
            input_tokens=last.input_tokens,
            output_tokens=last.output_tokens,
            latency_seconds=self.seconds(),
            segment=self.asked.segment,
            user_id=self.asked.user_id,
            regenerates=self.asked.regenerates,
        )
        # The event's id is the response's: whatever is sent twice counts once.
        event = new_event(output, source=SOURCE, id=self.response_id, traceparent=self.traceparent)
        return self.gateway.outputs.publish_buffered(OUTPUTS, event)


def open_exchange(gateway: Gateway, asked: ChatRequest, *, request_id: str, traceparent: str) -> Exchange:
    """Check what was asked and choose who answers; raises `RequestRefused` or `UnknownVersion`."""
    if asked.regenerates is not None and not re.match(RESPONSE_ID_PATTERN, asked.regenerates):
        raise RequestRefused(
            "metadata.regenerates must be the id of an earlier response", code="invalid_value", param="metadata"
        )
    return Exchange(
        gateway=gateway,
        asked=asked,
        sampling=sampling(asked, gateway.limits),
        route=choose_route(gateway, asked.model),
        response_id=new_response_id(),
        created=int(time.time()),
        started=time.perf_counter(),
        request_id=request_id,
        traceparent=traceparent,
    )


def choose_route(gateway: Gateway, model: str) -> Route:
    """The version that answers for `model` at this moment; raises `UnknownVersion`."""
    return route(
        model,
        board=gateway.keeper.board,
        serving=gateway.keeper.serving,
        base_model_name=gateway.base_model_name,
        pin_rejected=gateway.pin_rejected,
    )
