"""Private keys in PEM form.

Source: RFC 7468 (encapsulation boundaries), RFC 1421 (headers), OpenSSH's PROTOCOL.key, RFC 9580 section 6.2
(OpenPGP). A block that was cut off before its end is replaced as far as its lines go.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser

_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_LINES = re.compile(r"[0-9A-Za-z+/=\s\\:,.]*+")
_LONGEST = 32_768  # characters; a 16,384-bit RSA key has about 13,000


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """From each beginning to the next end, or as far as base64 goes."""
    ends = [match.end() for match in _END.finditer(text, start, end)]
    done = 0
    for begin in _BEGIN.finditer(text, start, end):
        if begin.start() < done:
            continue
        following = bisect_left(ends, begin.end())
        if following < len(ends) and ends[following] - begin.start() <= _LONGEST:
            done = ends[following]
        else:
            lines = _LINES.match(text, begin.end())
            assert lines is not None  # it matches nothing, too
            done = begin.end() + len(lines[0].rstrip())
        yield Span(begin.start(), done)


PEM = Recogniser("pem", Kind.SECRET, find, marks=("PRIVATE KEY",))
