"""User name and password in front of the host of a URL.

Source: RFC 3986 section 3.2.1 (userinfo; the form with a password is deprecated there, and common in connection
strings). The host goes with them: what follows the sign would read as an e-mail address.
"""

import re
from collections.abc import Iterator

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser

_USER_INFO = re.compile(r"://([^\s:/@?#\"'<>]{0,128}:[^\s/?#\"'<>@]{1,256}@[^\s/:@?#\"'<>,;)]{1,255})")
_TEMPLATE_SIGNS = "{$<%*["


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """What stands between `://` and the port or path, where it holds a password and isn't a template."""
    for match in _USER_INFO.finditer(text, start, end):
        password = match[1].partition(":")[2].rpartition("@")[0]
        if password[0] not in _TEMPLATE_SIGNS:
            yield Span(match.start(1), match.start(1) + len(match[1].rstrip(".")))


URL = Recogniser("url_password", Kind.SECRET, find, marks=("://",))
