"""Simulated users at work, over real HTTP.

    pace ─► visit: a user asks ─► reads the answer ─► (asks again) ─► thumbs, comments, corrections ─► ledger
            `concurrency` visits at a time

Each visit draws from a generator of its own, seeded by its number: what a user does depends on the seed and on
the answers, not on which request came back first. The first answers are only read, they make the users' scale.
"""

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.simulate import prompts, users
from infra.simulate.client import GatewayClient, Reply
from infra.simulate.ledger import Answer, Ledger
from infra.simulate.tastes import Taste
from infra.simulate.users import Kind, Reaction, Scale, User
from schemas.feedback import THUMBS, FeedbackKind

KNOWN_ANSWERS = 5
BAD_BODIES = (
    ("/v1/feedback", b'{"response_id": '),
    ("/v1/feedback", b'{"response_id": "not-an-id", "kind": "thumbs_up"}'),
    ("/v1/chat/completions", b'{"model": "thumbwheel", "messages": []}'),
)
"""Requests that are bad on purpose: the gateway must refuse each with a 4xx."""


@dataclass(frozen=True, kw_only=True)
class TrafficPlan:
    """Who asks what, how, and how many at a time."""

    population: Sequence[User]
    prompts: Sequence[str]
    taste: Taste
    temperature: float
    max_completion_tokens: int
    instruction: str | None = None
    concurrency: int = 8
    first_thumbs_after: int = 40
    seed: int = 0


class Pace:
    """How many visits may begin in a second: `rate` None is as many as there is room for, 0 is none."""

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        self._next = 0.0

    async def turn(self, stop: asyncio.Event) -> None:
        """Wait for one's turn, or until all stops."""
        clock = asyncio.get_running_loop().time
        while not stop.is_set():
            if self.rate is None:
                return
            if self.rate > 0 and clock() >= self._next:
                self._next = max(clock(), self._next) + 1 / self.rate
                return
            await asyncio.sleep(0.05)


class Traffic:
    """The users of one run. `ledger` and `scale` can be read at any time; `clock` tells seconds for the history."""

    def __init__(
        self, plan: TrafficPlan, client: GatewayClient, *, pace: Pace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ledger = Ledger()
        self.scale: Scale | None = None
        self._plan, self._client, self._pace = plan, client, pace
        self._first: list[float] = []
        self._known: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=KNOWN_ANSWERS))
        self._visits = 0
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Send traffic until `stop`; visits that have begun are finished. The first failure ends all and is raised."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.concurrency):
                    group.create_task(self._worker(stop))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def misbehave(self) -> None:
        """Send the requests that are bad on purpose."""
        for path, content in BAD_BODIES:
            status = await self._client.post_raw(path, content)
            self.ledger.refused_on_purpose += 400 <= status < 500

    async def _worker(self, stop: asyncio.Event) -> None:
        while True:
            await self._pace.turn(stop)
            if stop.is_set():
                return
            self._visits += 1
            await self._visit(random.Random(f"visit/{self._plan.seed}/{self._visits}"))

    async def _visit(self, rng: random.Random) -> None:
        user = rng.choice(self._plan.population)
        prompt = rng.choice(self._plan.prompts)
        first = await self._ask(user, prompt, rng=rng)
        scale = self._calibrate(first.taste)
        if scale is None:
            return self._read(first, None, user)
        if users.asks_again(user, rng):
            return await self._ask_again(user, first, rng=rng)
        said = users.react(user, first.taste, scale, rng=rng)
        await self._say(first, user, said)
        await self._correct(first, user, rng)
        return self._read(first, _last_thumb(said), user)

    async def _ask_again(self, user: User, first: Answer, *, rng: random.Random) -> None:
        await self._say(first, user, (Reaction(FeedbackKind.REGENERATE),))
        second = await self._ask(user, first.prompt, rng=rng, regenerates=first.response_id)
        thumbs = users.compare(user, first.taste, second.taste, rng=rng)
        for answer, thumb in zip((first, second), thumbs or (None, None), strict=True):
            if thumb is not None:
                # The first answer has been asked again already, under the number 0.
                await self._say(answer, user, (thumb,), begin=1)
            self._read(answer, thumb.kind if thumb else None, user)

    async def _ask(self, user: User, prompt: str, *, rng: random.Random, regenerates: str | None = None) -> Answer:
        reply = await self._client.ask(
            [dict(m) for m in prompts.as_messages(prompt, self._plan.instruction)],
            temperature=self._plan.temperature,
            max_completion_tokens=self._plan.max_completion_tokens,
            seed=rng.getrandbits(31),
            user=user.user_id,
            metadata={"regenerates": regenerates} if regenerates else None,
        )
        answer = self._answer(reply, prompt, user)
        self.ledger.answered(answer)
        self.ledger.retries = self._client.retries
        return answer

    def _answer(self, reply: Reply, prompt: str, user: User) -> Answer:
        taste = self._plan.taste(prompt, reply.text)
        self._known[prompt].append(reply.text)
        return Answer(reply.response_id, prompt, reply.text, reply.version, user.user_id, taste)

    def _calibrate(self, taste: float) -> Scale | None:
        """The users' scale, or None while too few answers have been seen."""
        if self.scale is None:
            self._first.append(taste)
            if len(self._first) >= self._plan.first_thumbs_after:
                self.scale = users.scale_of(self._first)
        return self.scale

    async def _correct(self, answer: Answer, user: User, rng: random.Random) -> None:
        if user.kind is not Kind.PERSON:
            return
        known = list(self._known[answer.prompt])
        text = users.correct(answer.prompt, answer.text, known=known, taste=self._plan.taste, rng=rng)
        if text is not None:
            await self._say(answer, user, (Reaction(FeedbackKind.CORRECTION, text),), begin=90)

    async def _say(self, answer: Answer, user: User, said: Sequence[Reaction], *, begin: int = 0) -> None:
        """Send what is said in order; a repeat goes out under the same id, as a client's retry does."""
        for number, reaction in enumerate(said, begin):
            feedback_id = f"{answer.response_id}/{user.user_id}/{number}"
            for _ in range(reaction.repeat):
                sent = await self._client.say(
                    answer.response_id, reaction.kind, id=feedback_id, user=user.user_id, text=reaction.text
                )
                self.ledger.attempts[feedback_id] += sent
                self.ledger.acknowledge(feedback_id, reaction.kind)

    def _read(self, answer: Answer, thumb: FeedbackKind | None, user: User) -> None:
        self.ledger.read(answer, thumb, seconds=self._clock(), spam=user.kind is not Kind.PERSON)


def _last_thumb(said: Sequence[Reaction]) -> FeedbackKind | None:
    """The thumb that stands after all that was said."""
    standing: FeedbackKind | None = None
    for reaction in said:
        if reaction.kind in THUMBS:
            standing = reaction.kind
        elif reaction.kind is FeedbackKind.WITHDRAWAL:
            standing = None
    return standing
