"""What a lab can be told."""

from dataclasses import dataclass

from infra.simulate import tastes
from schemas.errors import SettingsError

RUDE = "infra.lab.poisons:rude"
ONE_SEGMENT = "default"


@dataclass(frozen=True, kw_only=True)
class LabOptions:
    """The command line of `thumbwheel lab`, but for its folder. Shares are of `users`.

    `segments` are (name, taste) pairs, each with an equal part of the people; without any, all have `taste`. From the
    cycle `drift_at` on (0: never) everybody's taste is `drift_taste`. `answers` are given to users in each cycle.
    """

    model: str = "tiny"
    taste: str = tastes.DEFAULT
    segments: tuple[tuple[str, str], ...] = ()
    drift_at: int = 0
    drift_taste: str = ""
    seeds: int = 5
    first_seed: int = 0
    cycles: int = 3
    users: int = 60
    answers: int = 1000
    flips: float = 0.2
    spammers: float = 0.1
    poisoners: float = 0.0
    poison: str = RUDE

    def __post_init__(self) -> None:
        checks = (
            (1 <= self.seeds <= 1_000, "--seeds must be between 1 and 1000", self.seeds),
            (self.first_seed >= 0, "--first-seed must not be negative", self.first_seed),
            (1 <= self.cycles <= 1_000, "--cycles must be between 1 and 1000", self.cycles),
            (1 <= self.users <= 10_000, "--users must be between 1 and 10000", self.users),
            (1 <= self.answers <= 100_000, "--answers must be between 1 and 100000", self.answers),
            (0 <= self.flips <= 1, "--flips must be between 0 and 1", self.flips),
            (0 <= self.spammers <= 1, "--spammers must be between 0 and 1", self.spammers),
            (0 <= self.poisoners <= 1, "--poisoners must be between 0 and 1", self.poisoners),
            (self.drift_at >= 0, "--drift-at must not be negative", self.drift_at),
            (
                bool(self.drift_at) == bool(self.drift_taste),
                "give --drift-at and --drift-taste together",
                self.drift_at,
            ),
            (len(dict(self.segments)) == len(self.segments), "each --segment needs a name of its own", self.segments),
        )
        for holds, message, value in checks:
            if not holds:
                raise SettingsError(f"{message}; it is {value}")
        if self.people < max(1, len(self.segments)):
            raise SettingsError(
                f"of {self.users} users {self.bad(self.spammers)} are spammers and {self.bad(self.poisoners)} "
                "poisoners: nobody is left who votes by taste (each segment needs one); give more --users or smaller"
                " shares"
            )

    def bad(self, share: float) -> int:
        """How many users a share is."""
        return round(share * self.users)

    @property
    def people(self) -> int:
        """Users who vote by their taste."""
        return self.users - self.bad(self.spammers) - self.bad(self.poisoners)

    @property
    def seed_range(self) -> range:
        """The seeds of the run."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def tastes_at(self, cycle: int) -> dict[str, str]:
        """The taste of each segment, by name, in a cycle (they are counted from 1)."""
        named = dict(self.segments) or {ONE_SEGMENT: self.taste}
        drifted = self.drift_at and cycle >= self.drift_at
        return {name: self.drift_taste if drifted else taste for name, taste in named.items()}

    def taste_names(self) -> tuple[str, ...]:
        """Every taste that the run needs, the poisoners' included."""
        every = [*self.tastes_at(0).values(), *([self.drift_taste] if self.drift_at else []), self.poison]
        return tuple(dict.fromkeys(every))


def segment(text: str) -> tuple[str, str]:
    """A `--segment NAME=MODULE:FUNCTION`; raises `SettingsError`."""
    name, found, taste = text.partition("=")
    if not (name and found and ":" in taste):
        raise SettingsError(f"--segment {text!r} is not of the form name=module:function")
    return name, taste
