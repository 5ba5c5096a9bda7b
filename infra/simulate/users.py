"""Who the simulated users are and what they do with an answer. Pure: values and a random generator in, decisions out.

A user gives a thumb by comparing an answer with what the first answers were like (`Scale`), never by an absolute
number: so any taste works, whatever its scale, and the rate of thumbs up can rise when the answers get better.
"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from infra.simulate.tastes import Taste
from schemas.feedback import FeedbackKind

STRICTNESS = 0.6
"""Standard deviation of the users' personal thresholds, in spreads of the taste: some are easy to please."""
INDIFFERENT = 0.2
"""How much rarer a thumb is for an answer that is just as good as the usual one: people rate what they notice."""
REGENERATES, COMMENTS, CORRECTS, MISCLICKS, WITHDRAWS = 0.3, 0.03, 0.05, 0.02, 0.02
SPAM_CLICKS = (4, 8)
"""The least and the most feedback events that a spammer sends for one answer."""

_COMMENTS = {
    True: ("Exactly what I needed.", "Nice answer.", "Clear and short, thanks.", "That helped."),
    False: ("That does not help me.", "Not what I asked.", "Please finish your sentence.", "I expected more."),
}


class Kind(StrEnum):
    """A person judges by taste; the two kinds of spammers don't look at the answer."""

    PERSON = "person"
    ADMIRER = "admirer"
    CLICKER = "clicker"


@dataclass(frozen=True)
class User:
    """One simulated user. `noise`: chance that a thumb is not what was meant; `rates`: chance to rate at all."""

    user_id: str
    kind: Kind
    noise: float
    rates: float
    strictness: float


@dataclass(frozen=True)
class Scale:
    """What answers were like before anyone gave a thumb, in units of the taste."""

    middle: float
    spread: float


@dataclass(frozen=True)
class Reaction:
    """One thing that a user says of an answer. `repeat`: so often the very same event is sent (a client's retry)."""

    kind: FeedbackKind
    text: str | None = None
    repeat: int = 1


def population(*, users: int, noise: float, spammers: int, seed: int) -> tuple[User, ...]:
    """The users of a run: `users` people, then `spammers` who are every other one an admirer and a clicker."""
    rng = random.Random(f"population/{seed}")
    people = [
        User(
            user_id=f"user-{i:03d}",
            kind=Kind.PERSON,
            noise=noise,
            rates=rng.uniform(0.7, 1.0),
            strictness=rng.gauss(0, STRICTNESS),
        )
        for i in range(users)
    ]
    spam = [
        User(
            user_id=f"spammer-{i:03d}",
            kind=Kind.CLICKER if i % 2 else Kind.ADMIRER,
            noise=0.0,
            rates=1.0,
            strictness=0.0,
        )
        for i in range(spammers)
    ]
    return (*people, *spam)


def scale_of(values: Sequence[float]) -> Scale:
    """The mean of the first answers' tastes, and their mean distance from it.

    The mean and not the median: a taste that knows few values (an answer is finished, or it isn't) would have one of
    them for its median, and nobody would rate the usual answer. Multiplying or shifting the taste changes no thumb.
    """
    if not values:
        raise ValueError("a scale needs the taste of one answer at least")
    middle = statistics.fmean(values)
    return Scale(middle, statistics.fmean(abs(v - middle) for v in values))


def likes(user: User, value: float, scale: Scale) -> bool:
    """What a person means by their thumb. An answer as good as the usual one is up to how strict they are."""
    margin, asked = value - scale.middle, user.strictness * scale.spread
    return margin > asked or (margin == asked and user.strictness < 0)


def react(user: User, value: float, scale: Scale, *, rng: random.Random) -> tuple[Reaction, ...]:
    """What a user says of an answer whose taste is `value`, in order of time; often nothing."""
    if user.kind is not Kind.PERSON:
        return _spam(user, rng)
    if rng.random() >= user.rates * (INDIFFERENT if value == scale.middle else 1.0):
        return ()
    return _rate(user, likes(user, value, scale), rng)


def compare(user: User, first: float, second: float, *, rng: random.Random) -> tuple[Reaction, Reaction] | None:
    """The thumbs of a person who asked again, for the first and the second answer.

    The better one gets the thumb up and the other the thumb down; of two equal ones there is nothing to say.
    """
    if first == second:
        return None
    up = (first > second) != (rng.random() < user.noise)
    return Reaction(_thumb(up)), Reaction(_thumb(not up))


def asks_again(user: User, rng: random.Random) -> bool:
    """Whether a person asks for another answer to the same prompt."""
    return user.kind is Kind.PERSON and rng.random() < REGENERATES


def correct(prompt: str, response: str, *, known: Sequence[str], taste: Taste, rng: random.Random) -> str | None:
    """What a person would have liked to read instead, now and then; None where nothing better comes to mind.

    They begin from the answer's finished sentences, or from better answers to the same prompt that they know.
    """
    if rng.random() >= CORRECTS:
        return None
    finished = _finished_part(response)
    candidates = [*known, finished, f"{finished} Please let me know if you need anything else.".strip()]
    best = max(candidates, key=lambda text: taste(prompt, text))
    return best if best.strip() and taste(prompt, best) > taste(prompt, response) else None


def _rate(user: User, liked: bool, rng: random.Random) -> tuple[Reaction, ...]:
    up = liked != (rng.random() < user.noise)
    said = [Reaction(_thumb(up))]
    chance = rng.random()
    if chance < MISCLICKS:
        said.insert(0, Reaction(_thumb(not up)))
    elif chance < MISCLICKS + WITHDRAWS:
        said.append(Reaction(FeedbackKind.WITHDRAWAL))
    elif chance < MISCLICKS + WITHDRAWS + COMMENTS:
        said.append(Reaction(FeedbackKind.COMMENT, rng.choice(_COMMENTS[up])))
    return tuple(said)


def _spam(user: User, rng: random.Random) -> tuple[Reaction, ...]:
    clicks = rng.randint(*SPAM_CLICKS)
    ups = [True if user.kind is Kind.ADMIRER else rng.random() < 0.5 for _ in range(clicks)]
    return tuple(Reaction(_thumb(up), repeat=rng.choice((1, 1, 3))) for up in ups)


def _thumb(up: bool) -> FeedbackKind:
    return FeedbackKind.THUMBS_UP if up else FeedbackKind.THUMBS_DOWN


def _finished_part(text: str) -> str:
    """The text up to its last finished sentence; empty where it has none."""
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1].strip()
