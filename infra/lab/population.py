"""Who the users of a lab are, what they ask, and what they say. Pure: options and seeds in, decisions out.

People judge by the taste of their segment, and flip some of their votes; spammers vote without looking and come back
often; poisoners vote, all of them and always, for the same bad property. How each of them reacts is the demo's
(`infra.simulate.users`): a thumb compares an answer with what the base's answers were like.
"""

import random
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from infra.lab.options import LabOptions
from infra.simulate import users
from infra.simulate.tastes import Taste
from infra.simulate.users import Kind, Reaction, Scale, User
from schemas.feedback import FeedbackKind

SPAM_VISITS = 5
"""A spammer comes so many times as often as anybody else: that is what makes it spam."""
KNOWN_ANSWERS = 5
"""Answers to a prompt that a user remembers when they write a correction."""


class Role(StrEnum):
    """Why somebody votes."""

    PERSON = "person"
    SPAMMER = "spammer"
    POISONER = "poisoner"


@dataclass(frozen=True)
class Member:
    """A user of the lab. Spammers and poisoners are in segments too: nobody can tell them from the others by that."""

    user: User
    role: Role
    segment: str

    @property
    def weight(self) -> int:
        """How often they come."""
        return SPAM_VISITS if self.role is Role.SPAMMER else 1


@dataclass(frozen=True)
class Visit:
    """One user's question. `again`: they ask for a second answer, whatever the first is."""

    number: int
    member: Member
    prompt: str
    again: bool


@dataclass(frozen=True)
class Mind:
    """What a member judges by: a taste, and what the base's answers are worth by it."""

    taste: Taste
    scale: Scale


@dataclass(frozen=True)
class Said:
    """A reaction to the first (0) or second (1) answer of a visit; `number` tells a visit's reactions apart."""

    answer: int
    number: int
    reaction: Reaction


def populate(options: LabOptions, seed: int) -> tuple[Member, ...]:
    """The users of one seed: people, then spammers, then poisoners, each dealt out evenly to the segments."""
    segments = tuple(options.tastes_at(0))
    spammers, poisoners = options.bad(options.spammers), options.bad(options.poisoners)
    voters = users.population(users=options.people, noise=options.flips, spammers=spammers, seed=seed)
    poison = [
        User(user_id=f"poisoner-{n:03d}", kind=Kind.PERSON, noise=0.0, rates=1.0, strictness=0.0)
        for n in range(poisoners)
    ]
    roles = [Role.PERSON] * options.people + [Role.SPAMMER] * spammers + [Role.POISONER] * poisoners
    everybody = enumerate(zip((*voters, *poison), roles, strict=True))
    return tuple(Member(user, role, segments[n % len(segments)]) for n, (user, role) in everybody)


def segment_shares(members: Iterable[Member]) -> dict[str, float]:
    """The share of the people (not of those who vote otherwise) in each segment."""
    counts: dict[str, int] = defaultdict(int)
    for member in members:
        if member.role is Role.PERSON:
            counts[member.segment] += 1
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def visits(
    members: Sequence[Member], prompts: Sequence[str], *, answers: int, seed: int, cycle: int
) -> tuple[Visit, ...]:
    """The questions of one cycle, until so many answers are given. Each visit has a generator of its own."""
    found: list[Visit] = []
    weights = [member.weight for member in members]
    given = 0
    while given < answers:
        rng = random.Random(f"lab/visit/{seed}/{cycle}/{len(found)}")
        member, prompt = rng.choices(members, weights)[0], rng.choice(prompts)
        again = users.asks_again(member.user, rng) and given + 2 <= answers
        found.append(Visit(len(found), member, prompt, again))
        given += 1 + again
    return tuple(found)


class Crowd:
    """What everybody says of the answers of one cycle. `minds` are by segment; `poison` is the poisoners' mind."""

    def __init__(self, minds: Mapping[str, Mind], poison: Mind, *, seed: int, cycle: int) -> None:
        self._minds, self._poison, self._name = minds, poison, f"lab/reaction/{seed}/{cycle}"
        self._known: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=KNOWN_ANSWERS))

    def react(self, visit: Visit, texts: Sequence[str]) -> list[Said]:
        """What is said of a visit's one or two answers, in order. Give the visits in their order."""
        rng = random.Random(f"{self._name}/{visit.number}")
        self._known[visit.prompt].extend(texts)
        mind, user = self._mind(visit.member), visit.member.user
        worth = [mind.taste(visit.prompt, text) for text in texts]
        if visit.again:
            said = [Said(0, 0, Reaction(FeedbackKind.REGENERATE))]
            thumbs = users.compare(user, worth[0], worth[1], rng=rng)
            return said + [Said(n, 1, thumb) for n, thumb in enumerate(thumbs or ())]
        said = [Said(0, n, reaction) for n, reaction in enumerate(users.react(user, worth[0], mind.scale, rng=rng))]
        if visit.member.role is Role.PERSON:
            known = list(self._known[visit.prompt])
            better = users.correct(visit.prompt, texts[0], known=known, taste=mind.taste, rng=rng)
            said += [Said(0, 90, Reaction(FeedbackKind.CORRECTION, better))] if better is not None else []
        return said

    def _mind(self, member: Member) -> Mind:
        return self._poison if member.role is Role.POISONER else self._minds[member.segment]
