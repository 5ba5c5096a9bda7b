"""JSON Web Tokens and the encrypted kind.

Source: RFC 7519, RFC 7515 section 7.1: three parts in base64url with full stops between them, of which the first is a
JSON object and so begins with `eyJ`; RFC 7516: five parts.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser

_START = re.compile(r"(?<![0-9A-Za-z_-])eyJ")
_TOKEN = re.compile(r"[0-9A-Za-z_.-]*+")
_FEWEST_PARTS, _SHORTEST_HEADER = 3, 10


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """Runs that begin like a token and have its parts; the signature may be empty (`alg: none`)."""
    for head in _START.finditer(text, start, end):
        token = _TOKEN.match(text, head.start())
        assert token is not None  # it matches nothing, too
        written = token[0].rstrip("-_") if token[0].endswith(".") else token[0]
        parts = written.split(".")
        if len(parts) >= _FEWEST_PARTS and len(parts[0]) >= _SHORTEST_HEADER and parts[1]:
            yield Span(head.start(), head.start() + len(written))


JWT = Recogniser("jwt", Kind.SECRET, find, marks=("eyJ",))
