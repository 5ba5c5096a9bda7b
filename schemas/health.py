"""Topics `thumbwheel.slis.v1` and `thumbwheel.alerts.v1`: windowed indicators, and alerts raised and resolved."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.messages import Identifier, Payload
from schemas.outputs import ResponseId

Count = Annotated[int, Field(ge=0)]


class Sli(Payload):
    """Indicators of one version and segment in one window [window_start, window_end)."""

    schema_name: ClassVar[str] = "slis"

    version: Identifier
    segment: Identifier
    window_start: datetime
    window_end: datetime
    outputs: Count
    thumbs_up: Count
    thumbs_down: Count
    latency_seconds_sum: Annotated[float, Field(ge=0)]

    @property
    def partition_key(self) -> str:
        return f"{self.version}/{self.segment}"


class Alert(Payload):
    """Something needs a look (`raised`), or no longer does (`resolved`)."""

    schema_name: ClassVar[str] = "alerts"

    fingerprint: Identifier
    state: Literal["raised", "resolved"]
    name: Identifier
    severity: Literal["page", "ticket", "info"]
    summary: str
    version: Identifier | None = None
    example_response_ids: tuple[ResponseId, ...] = ()

    @property
    def partition_key(self) -> str:
        return self.fingerprint
