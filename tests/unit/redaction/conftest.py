"""The distribution is tested from its folder until it is installed."""

import sys
from pathlib import Path

_DISTRIBUTION = Path(__file__).parents[3] / "sdk" / "redaction"
if str(_DISTRIBUTION) not in sys.path:
    sys.path.insert(0, str(_DISTRIBUTION))
