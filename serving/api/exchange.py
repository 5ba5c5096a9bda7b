"""One request for an answer and what is remembered of it: decoded, routed, and in the end recorded."""

import asyncio
import logging
import time
from dataclasses import dataclass

from pydantic import ValidationError

from schemas.consent import Purposes
from schemas.envelope import new_event
from schemas.ids import new_response_id, prompt_id
from schemas.outputs import FinishReason, Output
from schemas.topics import OUTPUTS
from serving.api.gateway import SOURCE, Gateway
from serving.core.access import Caller
from serving.core.generation import Job, Piece, Sampling
from serving.core.metadata import purposes_in, regenerates_in, segment_in
from serving.core.replies import Head
from serving.core.routing import Route, route
from serving.core.wire import ChatRequest, sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exchange:
    """A request on its way to an answer. `started` is in `time.perf_counter` seconds."""

    gateway: Gateway
    asked: ChatRequest
    caller: Caller
    user: str | None
    purposes: Purposes
    token: str
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

    async def record(self, completion: str, last: Piece, finish_reason: FinishReason) -> bool:
        """Emit the answer as an event and log it; whether it was emitted. Never waits for the broker."""
        seconds = self.seconds()
        return await self.gateway.redaction.without_blocking(
            self._size(completion), lambda: self._record(completion, last, finish_reason, seconds)
        )

    def record_abandoned(self, completion: str, last: Piece) -> None:
        """The same for an answer whose client has left: nobody waits for it, and nothing may be awaited any more."""
        if not self.gateway.redaction.takes_long(self._size(completion)):
            self._record(completion, last, "length", self.seconds())
        else:
            # The loop waits for its threads before it ends, so this is recorded also when the gateway stops.
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._record, completion, last, "length", self.seconds())

    def _size(self, completion: str) -> int:
        return len(completion) + sum(len(message.content) for message in self.asked.chat_messages())

    def _record(self, completion: str, last: Piece, finish_reason: FinishReason, seconds: float) -> bool:
        recorded = self.asked.store is not False and self._emit(completion, last, finish_reason, seconds)
        extra = {
            "request_id": self.request_id,
            "response_id": self.response_id,
            "version": self.route.version,
            "input_tokens": last.input_tokens,
            "output_tokens": last.output_tokens,
            "finish_reason": finish_reason,
            "seconds": round(seconds, 3),
            "recorded": recorded,
        }
        logger.info("answered", extra=extra)
        return recorded

    def _emit(self, completion: str, last: Piece, finish_reason: FinishReason, seconds: float) -> bool:
        try:
            output = self._output(completion, last, finish_reason, seconds)
        except ValidationError:
            # Placeholders can be longer than what they stand for.
            logger.warning("not recorded: too long after redaction", extra={"response_id": self.response_id})
            self.gateway.metrics.events.labels(OUTPUTS.name, "dropped").inc()
            return False
        # The event's id is the response's: whatever is sent twice counts once.
        event = new_event(output, source=SOURCE, id=self.response_id, traceparent=self.traceparent)
        return self.gateway.outputs.publish_buffered(OUTPUTS, event)

    def _output(self, completion: str, last: Piece, finish_reason: FinishReason, seconds: float) -> Output:
        messages, kept, segment = self.gateway.redaction.exchange(
            self.asked.chat_messages(), completion, segment_in(self.asked.metadata)
        )
        return Output(
            response_id=self.response_id,
            prompt_id=prompt_id(messages),
            prompt=messages,
            completion=kept,
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
            latency_seconds=seconds,
            segment=segment,
            user_id=self.user,
            regenerates=regenerates_in(self.asked.metadata),
            request_id=self.request_id,
            tenant=self.caller.tenant,
            purposes=self.purposes,
            credential=self.caller.credential,
        )


def open_exchange(
    gateway: Gateway, asked: ChatRequest, caller: Caller, *, request_id: str, traceparent: str
) -> Exchange:
    """Check what was asked and choose who answers; raises `RequestRefused` or `UnknownVersion`."""
    response_id = new_response_id()
    user = gateway.redaction.user(asked.user_id)
    agreed = purposes_in(asked.metadata)
    purposes = gateway.default_purposes if agreed is None else agreed
    return Exchange(
        gateway=gateway,
        asked=asked,
        caller=caller,
        user=user,
        purposes=purposes,
        token=gateway.gatekeeper.token(response_id, caller=caller, user=user, purposes=purposes),
        sampling=sampling(asked, gateway.limits),
        route=choose_route(gateway, asked.model),
        response_id=response_id,
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
