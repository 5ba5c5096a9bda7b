"""Secrets: keys, tokens and passwords, recognised by their form or by the words in front of them."""

from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.recognisers.secrets.assigned import ASSIGNED
from thumbwheel_redaction.recognisers.secrets.jwt import JWT
from thumbwheel_redaction.recognisers.secrets.pem import PEM
from thumbwheel_redaction.recognisers.secrets.prefixed import PREFIXED
from thumbwheel_redaction.recognisers.secrets.random import RANDOM
from thumbwheel_redaction.recognisers.secrets.url import URL

SECRETS: tuple[Recogniser, ...] = (PREFIXED, JWT, PEM, URL, ASSIGNED, RANDOM)
