"""Numbers by which a state knows a person, one small file for each country.

Those with a strong check stand alone. Those that have none, or one that many other numbers pass, need a key word or
their printed form; each file says which.
"""

from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.recognisers.national.be import BE
from thumbwheel_redaction.recognisers.national.br import BR
from thumbwheel_redaction.recognisers.national.ca import CA
from thumbwheel_redaction.recognisers.national.ch import CH
from thumbwheel_redaction.recognisers.national.cn import CN
from thumbwheel_redaction.recognisers.national.de import DE
from thumbwheel_redaction.recognisers.national.dk import DK
from thumbwheel_redaction.recognisers.national.es import ES_DNI, ES_NIE
from thumbwheel_redaction.recognisers.national.fi import FI
from thumbwheel_redaction.recognisers.national.fr import FR
from thumbwheel_redaction.recognisers.national.gb import GB_NHS, GB_NINO
from thumbwheel_redaction.recognisers.national.india import AADHAAR, PAN
from thumbwheel_redaction.recognisers.national.it import IT
from thumbwheel_redaction.recognisers.national.nl import NL
from thumbwheel_redaction.recognisers.national.no import NO
from thumbwheel_redaction.recognisers.national.passport import PASSPORT
from thumbwheel_redaction.recognisers.national.pl import PL
from thumbwheel_redaction.recognisers.national.pt import PT
from thumbwheel_redaction.recognisers.national.se import SE
from thumbwheel_redaction.recognisers.national.tr import TR
from thumbwheel_redaction.recognisers.national.us import US
from thumbwheel_redaction.recognisers.national.za import ZA

NATIONAL_IDS: tuple[Recogniser, ...] = (
    *(
        US,
        CA,
        GB_NINO,
        GB_NHS,
        DE,
        FR,
        ES_DNI,
        ES_NIE,
        IT,
        NL,
        BE,
        PL,
        SE,
        NO,
        DK,
        FI,
        PT,
        CH,
        TR,
        BR,
        CN,
        AADHAAR,
        PAN,
        ZA,
    ),
    PASSPORT,
)
