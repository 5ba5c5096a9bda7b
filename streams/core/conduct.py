"""How raters behave: who judges faster than anybody reads, and who says the same of the same text again.

Both rules look at when events happened and what they say, so they give the same verdict in any order of arrival.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.feedback import THUMBS, FeedbackKind
from schemas.tables import ResponseRow

JUDGEMENTS = THUMBS | {FeedbackKind.CORRECTION}
"""What is held against the limit: what gold rows are made of."""


@dataclass(frozen=True, slots=True)
class BurstRule:
    """So many different answers may a rater judge within `seconds`; what is beyond counts for nothing.

    30 a minute is two seconds each: at 238 words a minute (Brysbaert 2019, doi:10.1016/j.jml.2019.104047) that is
    eight words read and no time to think. Raters are users. A credential is no rater: all users of one app share its
    API key. Events without a user can't be told apart by person, so this rule leaves them alone (the gateway limits
    their rate by credential).
    """

    limit: int = 30
    seconds: float = 60.0

    @property
    def window(self) -> timedelta:
        return timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement by a known user; `rater` is the user within their tenant."""

    event_id: str
    time: datetime
    rater: tuple[str | None, str]
    response_id: str


def bursts(judged: Iterable[Judged], rule: BurstRule) -> frozenset[str]:
    """The ids of the events beyond the limit: those at which the rater had judged more than `limit` different
    answers in the `seconds` up to and with it. Judging one answer often is one answer."""
    raters: dict[tuple[str | None, str], list[Judged]] = defaultdict(list)
    for one in _once(judged):
        raters[one.rater].append(one)
    return frozenset(i for events in raters.values() if len(events) > rule.limit for i in _beyond(events, rule))


def _once(judged: Iterable[Judged]) -> list[Judged]:
    found: dict[str, Judged] = {}
    for one in sorted(judged, key=lambda j: (j.time, j.event_id, j.rater[1], j.response_id)):
        found.setdefault(one.event_id, one)
    return list(found.values())


def _beyond(events: Iterable[Judged], rule: BurstRule) -> list[str]:
    recent: deque[Judged] = deque()
    answers: dict[str, int] = defaultdict(int)
    found: list[str] = []
    for event in events:
        recent.append(event)
        answers[event.response_id] += 1
        while event.time - recent[0].time >= rule.window:
            gone = recent.popleft().response_id
            answers[gone] -= 1
            if not answers[gone]:
                del answers[gone]
        if len(answers) > rule.limit:
            found.append(event.event_id)
    return found


def duplicates(responses: Iterable[ResponseRow]) -> frozenset[str]:
    """The response ids whose thumb only repeats what the same user has said of the same text to the same prompt.

    A model at temperature 0, or a canned refusal, gives one text many times: a thumb on each is one opinion. The
    earliest counts. Only thumbs with one known user behind them can be repeats; several users are several opinions.
    """
    seen: set[tuple[str | None, str | None, str, str, int | None]] = set()
    found: set[str] = set()
    for row in sorted(filter(_one_users, responses), key=lambda r: (r.rated_at or r.event_time, r.response_id)):
        said = (row.tenant, row.rater_id, row.prompt_id, row.completion, row.thumb)
        if said in seen:
            found.add(row.response_id)
        seen.add(said)
    return frozenset(found)


def _one_users(row: ResponseRow) -> bool:
    """Whether exactly one known user's thumb stands on it, and counts."""
    lone = row.thumb is not None and row.rater_id is not None and len(row.votes or ()) < 2
    return lone and row.thumb_weight != 0 and not row.retracted
