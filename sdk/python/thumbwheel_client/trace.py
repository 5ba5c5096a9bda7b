"""W3C trace context: where an event belongs in the host application's traces."""

import re
import sys

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def is_traceparent(text: str) -> bool:
    """Whether `text` has the form of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`, with neither id all zeros."""
    return _TRACEPARENT.fullmatch(text) is not None and "0" * 32 not in text and text[36:52] != "0" * 16


def current_traceparent() -> str | None:
    """The `traceparent` of OpenTelemetry's current span; None without one.

    OpenTelemetry is not a dependency: where the host application hasn't imported it, no span can be active.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 0xFF:02x}"
