"""A finished run as the summary is made from it."""

from infra.demo.evaluate import Evaluation, judge
from infra.demo.options import TINY, DemoOptions
from infra.demo.progress import Progress
from infra.demo.summary import Exactness, Outcome
from infra.simulate.ledger import Answer, Ledger
from infra.simulate.tastes import considerate
from schemas.feedback import FeedbackKind
from tests.unit.infra.demo.events import START, one_cycle

PROMPTS = ("Where is it?", "Why?", "When?", "Who?")


def evaluation() -> Evaluation:
    """v1 is better on three prompts of four and ties on the last."""
    base = [["It is", "It is."]] * 4
    v1 = [["<b>Thank</b> you. It is here.", "Please wait."]] * 3 + [["It is", "It is."]]
    return judge(PROMPTS, {"base": base, "v1": v1}, taste=considerate, seed=0, examples=2)


def ledger() -> Ledger:
    """Three answers of v1 and one of the base; two thumbs, of which one was sent twice."""
    found = Ledger()
    for n, version in enumerate(("base", "v1", "v1", "v1")):
        answer = Answer(f"r{n}", "Why?", "Because.", version, "user-000", 1.0)
        found.answered(answer)
        found.read(answer, FeedbackKind.THUMBS_UP if n < 2 else None, seconds=n * 10.0, spam=False)
    for feedback_id in ("f0", "f1", "f1"):
        found.acknowledge(feedback_id, FeedbackKind.THUMBS_UP)
    return found


def outcome(*, progress: Progress | None = None, exact: Exactness | None = None) -> Outcome:
    return Outcome(
        options=DemoOptions(model="tiny", seed=3),
        tuning=TINY,
        started_at=START,
        seconds=123.45,
        progress=progress or one_cycle(),
        evaluation=evaluation(),
        ledger=ledger(),
        labels=1,
        thumbs={"base": (3, 7), "v1": (8, 2)},
        tables={"outputs": 4, "feedback": 2, "labels": 1, "ratings": 20},
        dead_letters={"malformed_json": 2, "wrong_type": 1},
        feedback=exact or Exactness(2, 0, 0),
        outputs=Exactness(4, 0, 0),
        samples=((0.0, 0, 0), (60.0, 5, 4)),
    )
