"""The recognisers, one small file each. Their order has no effect: overlaps are decided by length and kind."""

from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.recognisers.card import CARD
from thumbwheel_redaction.recognisers.email import EMAIL, EMAIL_SPELLED
from thumbwheel_redaction.recognisers.iban import IBAN
from thumbwheel_redaction.recognisers.ip import IPV4, IPV6
from thumbwheel_redaction.recognisers.national import NATIONAL_IDS
from thumbwheel_redaction.recognisers.phone import PHONE
from thumbwheel_redaction.recognisers.secrets import SECRETS

RECOGNISERS: tuple[Recogniser, ...] = (EMAIL, EMAIL_SPELLED, PHONE, CARD, IBAN, *NATIONAL_IDS, IPV4, IPV6, *SECRETS)
