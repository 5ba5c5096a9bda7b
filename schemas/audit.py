"""Topic `thumbwheel.audit.v1`: who did what."""

from typing import ClassVar, Literal

from schemas.messages import Identifier, Payload


class Audit(Payload):
    """An act that someone may have to answer for."""

    schema_name: ClassVar[str] = "audit"

    actor: Identifier
    action: Literal[
        "promotion",
        "rollback",
        "label_export",
        "erasure",
        "key_creation",
        "key_revocation",
        "key_rotation",
        "replay",
        "dead_letter_drop",
        "export",
        "import",
        "rebuild",
        "version_approval",
        "version_decline",
    ]
    target: Identifier
    detail: str = ""

    @property
    def partition_key(self) -> str:
        return self.actor
