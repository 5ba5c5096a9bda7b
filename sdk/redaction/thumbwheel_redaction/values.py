"""When two spellings are the same value, and so get the same placeholder."""

import ipaddress
import re

from thumbwheel_redaction.kinds import Kind

_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]")
_EXTENSION = re.compile(r"[ ,]{0,2}(?:x|ext).{0,12}$")
_SPELLED_AT = re.compile(r"[ ]{0,2}[(\[{<] ?(?:at|@) ?[)\]}>][ ]{0,2}| at |%40")
_SPELLED_DOT = re.compile(r"[ ]{0,2}[(\[{<] ?(?:dot|punkt|point|punto) ?[)\]}>][ ]{0,2}| dot | ?\. ?")
_NOT_DIGIT = re.compile(r"[^0-9]")


def canonical(kind: Kind, value: str) -> str:
    """The spelling by which a value is compared: an e-mail address or name in any case, numbers whatever separates
    their digits, addresses of the internet in their shortest form. A secret is compared as it is written."""
    match kind:
        case Kind.EMAIL:
            return _SPELLED_AT.sub("@", _SPELLED_DOT.sub(".", value.casefold()))
        case Kind.PHONE:
            return _NOT_DIGIT.sub("", _EXTENSION.sub("", value.lower().replace("(0)", ""))).removeprefix("00")
        case Kind.CARD:
            return _NOT_DIGIT.sub("", value)
        case Kind.IBAN | Kind.NATIONAL_ID:
            return _NOT_ALPHANUMERIC.sub("", value).upper()
        case Kind.IP:
            return _address(value)
        case Kind.NAME:
            return " ".join(value.casefold().split())
        case Kind.SECRET:
            return value


def _address(value: str) -> str:
    try:
        return ipaddress.ip_address(value).compressed
    except ValueError:  # a recogniser of one's own may call something else an address
        return value
