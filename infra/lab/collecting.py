"""One cycle's traffic as events: what the gateway would have sent of these visits, on a clock of the lab's own. Pure.

A cycle is a day. Ids and times follow from seed, cycle and visit alone, so a collection that is made again is the same.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from infra.demo.options import Tuning
from infra.lab.answering import Drawn
from infra.lab.population import Said, Visit
from infra.simulate.prompts import as_messages
from schemas.envelope import Event, new_event
from schemas.feedback import Feedback
from schemas.ids import prompt_id
from schemas.outputs import Output

SOURCE = "infra/lab"
EPOCH = datetime(2026, 1, 5, tzinfo=UTC)
DAY, TRAFFIC = timedelta(days=1), timedelta(hours=20)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Place:
    """Where in the lab something happened; `visits` is how many the cycle has."""

    seed: int
    cycle: int
    visits: int

    @property
    def ingested_at(self) -> datetime:
        """When all of the cycle's events were taken in: after the last of them."""
        return EPOCH + self.cycle * DAY - timedelta(hours=1)

    def asked_at(self, visit: Visit) -> datetime:
        """When a visit began."""
        return EPOCH + (self.cycle - 1) * DAY + TRAFFIC * (visit.number / self.visits)

    def response_id(self, visit: Visit, answer: int) -> str:
        """An id of the gateway's form: a UUID version 7, whose random bits are drawn from the lab's seed."""
        bits = random.Random(f"lab/response/{self.seed}/{self.cycle}/{visit.number}/{answer}").getrandbits(80)
        milliseconds = round(self.asked_at(visit).timestamp() * 1000) + answer
        value = milliseconds << 80 | bits
        return f"chatcmpl-{value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"


def outputs(
    place: Place, visit: Visit, answers: Sequence[Drawn], *, version: str, base_model: str, tuning: Tuning
) -> list[Event[Output]]:
    """The events of a visit's answers."""
    prompt = as_messages(visit.prompt, tuning.instruction)
    ids = [place.response_id(visit, n) for n in range(len(answers))]
    found: list[Event[Output]] = []
    for n, drawn in enumerate(answers):
        data = Output(
            response_id=ids[n],
            prompt_id=prompt_id(prompt),
            prompt=prompt,
            completion=drawn.text,
            version=version,
            base_model=base_model,
            temperature=tuning.temperature,
            max_completion_tokens=tuning.max_completion_tokens,
            finish_reason="stop" if drawn.finished else "length",
            input_tokens=drawn.input_tokens,
            output_tokens=drawn.output_tokens,
            latency_seconds=0.0,
            segment=visit.member.segment,
            user_id=visit.member.user.user_id,
            regenerates=ids[0] if n else None,
        )
        found.append(new_event(data, source=SOURCE, id=f"out-{ids[n]}", time=place.asked_at(visit) + 10 * n * SECOND))
    return found


def feedback(place: Place, visit: Visit, said: Iterable[Said]) -> list[Event[Feedback]]:
    """The events of what is said of them, a second apart. A client's retries have the same id and are left out."""
    user = visit.member.user.user_id
    found: list[Event[Feedback]] = []
    for order, one in enumerate(said):
        response_id = place.response_id(visit, one.answer)
        data = Feedback(response_id=response_id, kind=one.reaction.kind, user_id=user, text=one.reaction.text)
        time = place.asked_at(visit) + (20 + order) * SECOND
        found.append(new_event(data, source=SOURCE, id=f"{response_id}/{user}/{one.number}", time=time))
    return found
