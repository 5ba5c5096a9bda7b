"""Values behind a word such as `password` and a sign or word that gives it: `password = hunter2`, `"apiKey": "..."`,
`Authorization: Bearer ...`, `my password is hunter2`.

Source: the names that OWASP's Secrets Management Cheat Sheet and the rules of common secret scanners have in common.

A value has to look like one. `password: required`, `token: the smallest unit`, `token = get_token()`,
`password = ${DB_PASSWORD}` and `api_key: <your key>` give nothing away. A passphrase of several words isn't
recognised.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser, lower
from thumbwheel_redaction.rules import places

_PASSWORD_STEMS = (
    *("password", "passwort", "passwd", "passphrase", "passcode", "pwd", "kennwort", "contraseña", "contrasena"),
    *("mot de passe", "senha", "wachtwoord", "hasło", "haslo", "lösenord", "пароль"),
    *("密码", "密碼", "パスワード", "비밀번호"),
)
_KEY_STEMS = ("key", "secret", "token", "credential")
_HEADER_STEMS = ("authorization", "bearer ", "basic ")

_KEY_OF = re.compile(
    r"(?:api|access|secret|private|account|signing|encryption|auth|master|service)[ _-]?\Z", re.IGNORECASE
)
_LONGEST_KEY_OF = 11
_GIVEN = re.compile(
    r"s?(?:[ _-]?(?:id|key|token|value|string|hash))?[0-9]{0,2}[\"'`\]]{0,2}[ \t]{0,3}"
    r"(?:(?P<sign>=>|:=|={1,2}|:)|(?:is|was|ist|lautet|est|es|to|seja|je)(?=[ \t:]):?|[是は])[ \t]{0,3}",
    re.IGNORECASE,
)
_HEADER = re.compile(r"[\"']?[ \t]{0,2}[:=]?[ \t]{0,2}[\"']?(?:(?:bearer|basic|token)[ \t]{1,2})?", re.IGNORECASE)
_BARE = re.compile(r"[^\s\"'`<>,;(){}\[\]&|\x00-\x20]*+")
_NEXT_FIELD = re.compile(r"&[A-Za-z_][0-9A-Za-z_-]{0,40}=")  # in a query string
_OPENING = ("(", "[", "{")
_QUOTES = "\"'`"

_SHORTEST_PASSWORD, _SHORTEST_IN_SETTINGS, _SHORTEST_KEY, _SHORTEST_HEADER = 4, 6, 8, 16
_SHORTEST_KEY_OF_LETTERS = 20
_ENDS_A_SENTENCE, _ENDS_A_VALUE = ".:!?*\\", ".:\\"
_REFERENCES = (
    *("$", "{", "<", "os.", "process.", "env.", "config.", "self.", "this.", "args.", "settings."),
    *("http://", "https://"),
)
_NO_VALUES = frozenset(
    """
    password passwd pwd secret token none null nil true false undefined string str required optional incorrect
    invalid wrong expired missing empty unknown hidden redacted changed reset protected correct your_password
    your-password yourpassword my_password mypassword your_api_key your-api-key your_token your-token your_secret
    api_key apikey example sample test todo here below above value input text
    """.split()  # noqa: SIM905  (a list of words is read, not counted)
)


class _Value(NamedTuple):
    """What follows the word and the sign: the text, its place, whether in quotes, what gave it, what is behind."""

    text: str
    start: int
    end: int
    quoted: bool
    sign: str
    behind: str

    @property
    def gives_nothing_away(self) -> bool:
        """Whether it is a word that says nothing, a reference to a value elsewhere, a call, or blanked out."""
        small = self.text.lower().rstrip("?!")
        blank = len(set(small)) <= 2  # ****, xxxx
        return small in _NO_VALUES or small.startswith(_REFERENCES) or blank or self.behind in _OPENING

    @property
    def mixed(self) -> bool:
        """Whether it holds what words don't: letters with digits or signs, or capitals behind small letters."""
        letters = any(character.isalpha() for character in self.text)
        digits = any(character.isdigit() for character in self.text)
        signs = any(not character.isalnum() and character not in "-'/._" for character in self.text)
        capitals = any(a.islower() and b.isupper() for a, b in pairwise(self.text))
        return letters and (digits or signs or capitals)


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """The values, without the quotes around them."""
    small = lower(text)
    for stems, given, looks_like_one in (
        (_PASSWORD_STEMS, _given, _is_password),
        (_KEY_STEMS, _given_for_a_key, _is_key),
        (_HEADER_STEMS, _in_a_header, _is_in_a_header),
    ):
        for stem in stems:
            reached = start
            for word in places(small, (stem,), start, end):
                # A word inside a value is part of it. To read on from each again would take quadratic time.
                value = given(text, word) if word.start >= reached else None
                if value is None:
                    continue
                reached = value.end
                if looks_like_one(value) and not value.gives_nothing_away:
                    yield Span(value.start, value.end)


def _given(text: str, word: Span) -> _Value | None:
    given = _GIVEN.match(text, word.end)
    return None if given is None else _value(text, given.end(), given["sign"] or "")


def _given_for_a_key(text: str, word: Span) -> _Value | None:
    """As above; where the word is `key`, only if it says what for: a `primary key` or `key point` is no secret."""
    is_key = text[word.start : word.end].lower() == "key"
    if is_key and _KEY_OF.search(text[max(0, word.start - _LONGEST_KEY_OF) : word.start]) is None:
        return None
    return _given(text, word)


def _in_a_header(text: str, word: Span) -> _Value | None:
    header = _HEADER.match(text, word.end)
    assert header is not None  # it matches nothing, too
    return _value(text, header.end(), "")


def _value(text: str, place: int, sign: str) -> _Value:
    """The value at this place. Punctuation that ends a sentence isn't part of it."""
    opened = text[place : place + 1]
    quoted = bool(opened) and opened in _QUOTES
    start = place + 1 if quoted else place
    end = _bare_end(text, start)
    written, behind = text[start:end], text[end : end + 1]
    closed = quoted and behind == opened
    if not closed:
        written = written.rstrip(_ENDS_A_VALUE if sign else _ENDS_A_SENTENCE)
    return _Value(written, start, start + len(written), closed, sign, behind)


def _bare_end(text: str, start: int) -> int:
    """Where the characters end that a value may have; an `&` is one of them unless the next field of a query string
    begins with it."""
    while True:
        bare = _BARE.match(text, start)
        assert bare is not None  # it matches nothing, too
        start = bare.end()
        if text[start : start + 1] != "&" or _NEXT_FIELD.match(text, start):
            return start
        start += 1


def _is_password(value: _Value) -> bool:
    if len(value.text) < _SHORTEST_PASSWORD:
        return False
    if not value.sign:  # `the password is ...`: nearly any word may follow
        return value.mixed
    in_settings = value.sign == "=" and len(value.text) >= _SHORTEST_IN_SETTINGS and value.text.isalnum()
    return value.quoted or in_settings or value.text.isdigit() or value.mixed


def _is_in_a_header(value: _Value) -> bool:
    return len(value.text) >= _SHORTEST_HEADER and value.mixed


def _is_key(value: _Value) -> bool:
    if any(character.isdigit() for character in value.text):
        return len(value.text) >= _SHORTEST_KEY and any(character.isalpha() for character in value.text)
    return len(value.text) >= _SHORTEST_KEY_OF_LETTERS and value.mixed and value.text.replace("-", "").isalnum()


_WORDS = (
    *(stem for stem in _PASSWORD_STEMS if not stem.startswith("pass")),
    *("pass", *_KEY_STEMS, *_HEADER_STEMS),  # one test for all those that begin with it
)

ASSIGNED = Recogniser("assigned", Kind.SECRET, find, words=_WORDS)
