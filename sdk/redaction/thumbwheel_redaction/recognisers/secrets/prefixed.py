"""Keys and tokens that begin with the mark of who issued them.

Source: the issuers' documentation, and GitHub's list of supported secret scanning patterns, which names most of them.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from thumbwheel_redaction.findings import Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.recogniser import Recogniser


class Issuer(NamedTuple):
    """A mark, and how many characters at least (and at most, where that is fixed) stand behind it."""

    mark: str
    least: int
    most: int | None = None


ISSUERS = (
    Issuer("AKIA", 16, 16),  # Amazon Web Services: long-term and temporary access key ids
    Issuer("ASIA", 16, 16),
    Issuer("AIza", 35, 35),  # Google
    Issuer("GOCSPX-", 20),
    Issuer("ya29.", 20),
    Issuer("ghp_", 30),  # GitHub
    Issuer("gho_", 30),
    Issuer("ghu_", 30),
    Issuer("ghs_", 30),
    Issuer("ghr_", 30),
    Issuer("github_pat_", 22),
    Issuer("glpat-", 20),  # GitLab
    Issuer("xoxb-", 10),  # Slack
    Issuer("xoxp-", 10),
    Issuer("xoxa-", 10),
    Issuer("xoxr-", 10),
    Issuer("xoxs-", 10),
    Issuer("xoxe-", 10),
    Issuer("xoxe.", 10),
    Issuer("xapp-", 10),
    Issuer("sk_live_", 10),  # Stripe
    Issuer("sk_test_", 10),
    Issuer("rk_live_", 10),
    Issuer("rk_test_", 10),
    Issuer("whsec_", 16),
    Issuer("sk-", 20),  # OpenAI, Anthropic (sk-ant-) and many who follow them
    Issuer("gsk_", 20),  # Groq
    Issuer("xai-", 20),
    Issuer("pplx-", 20),
    Issuer("r8_", 20),  # Replicate
    Issuer("hf_", 20),  # Hugging Face
    Issuer("npm_", 30),
    Issuer("pypi-AgE", 20),
    Issuer("dop_v1_", 32),  # DigitalOcean
    Issuer("dapi", 32, 34),  # Databricks
    Issuer("SG.", 40),  # SendGrid
    Issuer("shpat_", 32),  # Shopify
    Issuer("shpss_", 32),
    Issuer("sq0atp-", 20),  # Square
    Issuer("sq0csp-", 20),
    Issuer("glsa_", 32),  # Grafana
    Issuer("lin_api_", 30),  # Linear
    Issuer("AGE-SECRET-KEY-1", 50),
    Issuer("twk_", 16),  # our own gateway
)
_BY_MARK = {issuer.mark: issuer for issuer in ISSUERS}

# Longer marks first: an alternation takes the first that fits.
_MARK = re.compile(
    r"(?<![0-9A-Za-z_-])(?:" + "|".join(re.escape(m) for m in sorted(_BY_MARK, key=len, reverse=True)) + ")"
)
_BODY = re.compile(r"[0-9A-Za-z_.-]*+")


def find(text: str, start: int, end: int) -> Iterator[Span]:
    """A mark with enough behind it. The rest holds a digit, or capitals and small letters: `sk-learn-based-methods` has
    neither. Where the issuer fixes the length, that is enough."""
    for mark in _MARK.finditer(text, start, end):
        issuer = _BY_MARK[mark[0]]
        body = _BODY.match(text, mark.end())
        assert body is not None  # it matches nothing, too
        rest = body[0] if len(body[0]) == issuer.most else body[0].rstrip(".-_")
        long_enough = issuer.least <= len(rest) <= (issuer.most or len(rest))
        if long_enough and (issuer.most is not None or _looks_drawn(rest)):
            yield Span(mark.start(), mark.end() + len(rest))


def _looks_drawn(rest: str) -> bool:
    return any(character.isdigit() for character in rest) or (rest.lower() != rest != rest.upper())


PREFIXED = Recogniser("prefixed", Kind.SECRET, find, digits=1, run=15, marks=tuple(_BY_MARK))
