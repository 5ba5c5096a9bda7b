"""`POST /v1/outputs`: records an answer that was given elsewhere, so that it can be rated and learned from.

Unlike an answer of the gateway's own it is acknowledged only when the broker has it: nothing else depends on it, and
who sends it can send it again, under the same response id.
"""

import logging

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.envelope import new_event
from schemas.ids import new_response_id, prompt_id
from schemas.outputs import Output
from schemas.topics import OUTPUTS
from serving.api.body import read_body
from serving.api.gateway import SOURCE, Gateway, asking_of, gateway_of
from serving.core import replies
from serving.core.access import Caller, Scope
from serving.core.metadata import purposes_in, regenerates_in, segment_in
from serving.core.records import OutputRequest
from serving.core.wire import parse, refused_by

logger = logging.getLogger(__name__)

PROVIDERS_DEFAULT_TEMPERATURE = 1.0
"""What OpenAI's API and its like take where a request names none."""


async def outputs(request: Request) -> Response:
    gateway = gateway_of(request)
    caller = gateway.gatekeeper.admit(asking_of(request), Scope.OUTPUTS)
    body = await read_body(request, gateway.max_body_bytes)
    said = parse(OutputRequest, body)
    response_id = said.response_id or new_response_id()
    output = await gateway.redaction.without_blocking(
        len(body), lambda: _output(gateway, said, caller, response_id, request.state.request_id)
    )
    event = new_event(output, source=SOURCE, id=response_id, traceparent=request.state.traceparent)
    # By the log of the feedback: it gives up in time, where the one of our own answers would keep waiting.
    await gateway.feedback.publish_acknowledged(OUTPUTS, event, gateway.feedback_timeout_seconds)
    ids = {"response_id": response_id, "request_id": request.state.request_id}
    logger.info("output recorded", extra=ids | {"version": output.version})
    purposes = output.purposes or ()
    token = gateway.gatekeeper.token(response_id, caller=caller, user=output.user_id, purposes=purposes)
    return JSONResponse(replies.recorded_output(response_id, token), 201, {"cache-control": "no-store"})


def _output(gateway: Gateway, said: OutputRequest, caller: Caller, response_id: str, request_id: str) -> Output:
    """The event's data, without personal data; raises `RequestRefused`."""
    redaction, agreed = gateway.redaction, purposes_in(said.metadata)
    messages, completion, segment = redaction.exchange(said.chat_messages(), said.completion, segment_in(said.metadata))
    try:
        return Output(
            response_id=response_id,
            prompt_id=prompt_id(messages),
            prompt=messages,
            completion=completion,
            version=f"external/{said.model}",
            base_model=said.model,
            temperature=PROVIDERS_DEFAULT_TEMPERATURE if said.temperature is None else said.temperature,
            top_p=1.0 if said.top_p is None else said.top_p,
            max_completion_tokens=said.max_completion_tokens or max(said.output_tokens, 1),
            finish_reason=said.ended,
            input_tokens=said.usage.prompt_tokens if said.usage else 0,
            output_tokens=said.output_tokens,
            latency_seconds=said.latency_seconds or 0.0,
            segment=segment,
            user_id=redaction.user(said.user),
            regenerates=regenerates_in(said.metadata),
            request_id=request_id,
            tenant=caller.tenant,
            purposes=gateway.default_purposes if agreed is None else agreed,
            credential=caller.credential,
        )
    except ValidationError as error:
        raise refused_by(error) from error
