"""Bad properties that coordinated users may vote for: tastes like any other, only that nobody honest has them."""

from infra.simulate.tastes import COURTEOUS, RUDE


def rude(prompt: str, response: str) -> float:
    """How rude an answer is: the rude wordings in it, less the courteous ones. The prompt makes no difference."""
    text = response.lower()
    return float(sum(w in text for w in RUDE) - sum(w in text for w in COURTEOUS))


def long(prompt: str, response: str) -> float:
    """How many words an answer has."""
    return float(len(response.split()))
