"""Addresses of the internet, version 4 and 6.

Source: RFC 791 (four decimal octets), RFC 4291 section 2.2 (eight groups of hexadecimal digits, `::` for a run of
zeros), the IANA special-purpose address registries, and the IANA IPv6 address space (2000::/3 global, fc00::/7 unique
local, fe80::/10 link-local).

Left alone, because they point to nobody: loopback, unspecified, multicast and broadcast addresses, and net masks.
Replaced: private addresses (10/8, 172.16/12, 192.168/16, fc00::/7) too. Within one organisation, and in the log of
one gateway, they point to a desk.

Not an address: four numbers behind a word such as `version` or `section`, with a `v` or a product's name and a slash
in front (`Chrome/120.0.0.0`), as a part of a longer dotted number (an OID). An IPv6 address has to lie in one of the
blocks in use and hold a digit, so that `add::bed` in a C++ program is none.
"""

import ipaddress
import re
from collections.abc import Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.rules import near, words

_V4 = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_V4_BEGINS = re.compile(r"(?<![0-9A-Za-z_])(?<![A-Za-z][/.-])(?<![0-9][.-])")
_V4_ENDS = re.compile(r"(?![0-9A-Za-z_])(?!\.[0-9])(?!-[0-9A-Za-z])")
_V6 = re.compile(
    r"(?:[23][0-9A-Fa-f]{3}|[fF][cdCD][0-9A-Fa-f]{2}|[fF][eE][89ABab][0-9A-Fa-f]|::[fF]{4}):[0-9A-Fa-f:]{1,35}(?:\.[0-9]{1,3}){0,3}"
)
_V6_BEGINS = re.compile(r"(?<![0-9A-Za-z_:.])")
_V6_BLOCKS = tuple(ipaddress.IPv6Network(block) for block in ("2000::/3", "fc00::/7", "fe80::/10", "::ffff:0:0/96"))

_NOT_BEHIND = words(
    *(
        "version",
        "ver[. ]",
        "v[. ]",
        "release",
        "build",
        "firmware",
        "driver",
        "upgrade",
        "update",
        "patch",
        "assembly",
    ),
    *("section", "chapter", "clause", "paragraph", "figure", "fig[. ]", "table", "appendix", "article", "rule", "oid"),
    *("kapitel", "abschnitt"),
)
_SECTION_SIGN_REACH = 3
_WORD_REACH = 16
_MASK_START = "255."
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")


def _v4(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _V4.finditer(text, start, end):
        first, last = match.span()
        if not (_V4_BEGINS.match(text, first) and _V4_ENDS.match(text, last)):
            continue
        if "§" in text[max(0, first - _SECTION_SIGN_REACH) : first] or near(text, first, _NOT_BEHIND, _WORD_REACH):
            continue
        if _points_to_somebody(match[0]):
            yield Span(first, last)


def _v6(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _V6.finditer(text, start, end):
        first, last = match.span()
        written = match[0] if match[0].endswith("::") else match[0].rstrip(":.")
        if _V6_BEGINS.match(text, first) and not text[last : last + 1].isalnum() and _in_use(written):
            yield Span(first, first + len(written))


def _in_use(written: str) -> bool:
    try:
        address = ipaddress.IPv6Address(written)
    except ValueError:
        return False
    return any(address in block for block in _V6_BLOCKS) and any(character.isdigit() for character in written)


def _points_to_somebody(written: str) -> bool:
    if written.startswith(_MASK_START):
        return False
    try:
        address = ipaddress.IPv4Address(written)
    except ValueError:  # a number over 255, or one with a zero in front
        return False
    return not (address.is_loopback or address.is_multicast or address in _THIS_NETWORK)


IPV4 = Recogniser("ipv4", Kind.IP, _v4, digits=4, marks=(".",))
IPV6 = Recogniser("ipv6", Kind.IP, _v6, digits=1, marks=(":",))
