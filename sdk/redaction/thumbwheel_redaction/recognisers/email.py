"""E-mail addresses.

Source: RFC 5322 section 3.4.1 (dot-atom local part), RFC 5321 section 4.5.3.1 (64 characters before the sign, 255
behind it), RFC 6531 (letters of every script), RFC 1035 (labels of at most 63 characters). Quoted local parts and
address literals (`ann@[192.0.2.1]`) are left out: they are hardly ever written, while `"text"@` stands in code.

Also `ann%40example.org` as it stands in URLs, and the spellings that people use against harvesters: `ann (at) example
(dot) org`, `ann [at] example.org`. The bare words (`ann at example dot org`) count only as a whole, with `dot` in
front of a well-known top-level domain: "meet me at example dot com" is an address of a site.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import matching

_LOCAL_SIGNS = frozenset("!#$&'*+-/=?^_`{|}~.%")
_BEFORE_AN_ADDRESS = "!#$&'*/=?^`{|}~.%-"  # allowed by the RFC at the start, in practice punctuation around it
_LOCAL_LENGTH = 64

_SIGN = re.compile(r"@|%40")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,62})\.){1,8}(?:xn--[0-9A-Za-z-]{1,59}|[^\W\d_]{2,24})(?![\w@-])")

_SPELLED = re.compile(
    r"""(?<![\w.+-]) [\w.+-]{1,64}
        [ ]{0,2} [(\[{<] [ ]?at [)\]] [ ]{0,2}
        (?: [^\W_][\w-]{0,62} [ ]{0,2} (?: \. | [(\[{<] [ ]?(?:dot|punkt|point|punto)[ ]? [)\]}>] ) [ ]{0,2} ){1,4}
        [^\W\d_]{2,24} (?!\w)
      | (?<![\w.+-]) [\w.+-]{1,64} [ ] at [ ] (?: [^\W_][\w-]{0,62} [ ] dot [ ] ){1,4}
        (?:com|org|net|edu|gov|io|co|de|fr|uk|eu) (?!\w)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _local_start(text: str, sign: int) -> int:
    """Where the local part in front of the sign begins; the sign's own place where there is none."""
    start, lowest = sign, max(0, sign - _LOCAL_LENGTH)
    while start > lowest and (text[start - 1].isalnum() or text[start - 1] in _LOCAL_SIGNS):
        start -= 1
    while start < sign and text[start] in _BEFORE_AN_ADDRESS:
        start += 1
    # `?email=ann%40example.org`: in a URL or an assignment the address begins behind the last sign of that kind.
    for mark in "=&?/:":
        start = max(start, text.rfind(mark, start, sign) + 1)
    return start


def _written(text: str, start: int, end: int) -> Iterator[Span]:
    for sign in _SIGN.finditer(text, start, end):
        first = _local_start(text, sign.start())
        domain = _DOMAIN.match(text, sign.end())
        if first < sign.start() and domain and text[sign.start() - 1] != ".":
            yield Span(first, domain.end())


EMAIL = Recogniser("email", Kind.EMAIL, _written, marks=("@", "%"))
EMAIL_SPELLED = Recogniser(
    "email_spelled",
    Kind.EMAIL,
    matching(_SPELLED),
    words=("at)", "at]", " dot "),
)
