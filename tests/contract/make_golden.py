"""Writes the golden events of every released revision; existing files are never touched, released events stay.

python -m tests.contract.make_golden
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from schemas.audit import Audit
from schemas.consent import Purpose
from schemas.cycles import Cost, Cycle, CycleStatus, Stage, Trigger
from schemas.envelope import encode, new_event, type_name
from schemas.feedback import Feedback, FeedbackKind
from schemas.health import Alert, Sli
from schemas.ids import prompt_id
from schemas.labels import Candidate, Label, LabelTask, Verdict
from schemas.messages import ChatMessage, Payload
from schemas.outputs import Output
from schemas.preferences import Preference, PreferenceSource
from schemas.versions import GateResult, ModelVersion, VersionState

FOLDER = Path(__file__).parent / "golden"
MOMENT = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
FIRST, SECOND = (f"chatcmpl-01a1fdb519e579ec8de29a983d02a1e{n}" for n in (1, 2))
PROMPT = (ChatMessage(role="user", content="Where is my parcel? Größe: 2 €"),)
LEFT = Candidate(completion="It arrives tomorrow.", response_id=FIRST, version="base")
RIGHT = Candidate(completion="No idea.", response_id=SECOND, version="v1")
DETAILS = {"prompt_id": prompt_id(PROMPT), "prompt": PROMPT}

FIRST_REVISION: tuple[Payload, ...] = (
    Output(
        response_id=FIRST, completion="It arrives tomorrow.", version="base", base_model="smollm2", temperature=0.8,
        max_completion_tokens=32, seed=7, finish_reason="stop", input_tokens=12, output_tokens=5,
        latency_seconds=0.25, segment="shop", user_id="user-7", regenerates=SECOND, **DETAILS,
    ),
    Feedback(response_id=FIRST, kind=FeedbackKind.CORRECTION, text="It arrives on Monday.", user_id="user-7"),
    LabelTask(
        task_id="task-1", left=LEFT, right=RIGHT, reason="uncertain", uncertainty=0.5,
        selection_probability=0.25, reward_model="c20261121T103000-1a2b", **DETAILS,
    ),
    Label(
        task_id="task-1", labeler_id="labeler-1", verdict=Verdict.LEFT, left=LEFT, right=RIGHT,
        reasons=("answers the question",), seconds_taken=3.5, **DETAILS,
    ),
    Preference(
        preference_id="pair-1", kind="pair", revision=1, chosen="It arrives tomorrow.", rejected="No idea.",
        weight=1.0, source=PreferenceSource.LABEL, rater_id="labeler-1", response_ids=(FIRST, SECOND),
        versions=("base", "v1"), **DETAILS,
    ),
    ModelVersion(
        version="v1", state=VersionState.REGISTERED, parent="base", base_model="smollm2", adapter_path="v1",
        adapter_sha256="0" * 64, cycle_id="c20261121T103000-1a2b", kl=2.5, win_rate=0.7, actor="trainer",
        gates=(GateResult(name="kl", passed=True, value=2.5, low=2.0, high=3.0, threshold=8.0, detail="nats"),),
    ),
    Cycle(
        cycle_id="c20261121T103000-1a2b", status=CycleStatus.PROGRESS, stage=Stage.POLICY, fraction=0.5,
        metrics={"kl": 1.5}, cost=Cost(seconds=12.5, generated_tokens=1000, trained_tokens=4000),
    ),
    Sli(
        version="v1", segment="shop", window_start=MOMENT, window_end=MOMENT, outputs=10, thumbs_up=3,
        thumbs_down=1, latency_seconds_sum=4.5,
    ),
    Alert(
        fingerprint="thumbs-v1", state="raised", name="ThumbsDown", severity="page",
        summary="v1 gets more thumbs down than base", version="v1", example_response_ids=(FIRST,),
    ),
    Audit(actor="cli:ada", action="rollback", target="v1", detail="rude answers"),
)  # fmt: skip

LATER_REVISIONS: tuple[tuple[int, Payload], ...] = (
    (2, Output(
        response_id=FIRST, completion="It arrives tomorrow.", version="base", base_model="smollm2", temperature=0.8,
        max_completion_tokens=32, seed=7, finish_reason="stop", input_tokens=12, output_tokens=5,
        latency_seconds=0.25, segment="shop", user_id="user-7", request_id="request-1", shadow_of=SECOND,
        tenant="shop-1", purposes=(Purpose.TRAINING,), credential="key-1", **DETAILS,
    )),
    (2, Feedback(
        response_id=FIRST, kind=FeedbackKind.THUMBS_UP, user_id="user-7", tenant="shop-1",
        purposes=(Purpose.TRAINING, Purpose.LABELING), credential="key-2",
    )),
    (2, Preference(
        preference_id="pair-2", kind="pair", revision=1, chosen="It arrives tomorrow.", rejected="No idea.",
        weight=0.5, source=PreferenceSource.SIBLINGS, rater_id="user-7", response_ids=(FIRST, SECOND),
        versions=("v1", "v1"), **DETAILS,
    )),
    (2, Audit(actor="cli:ada", action="key_rotation", target="key-1")),
    (2, ModelVersion(
        version="v2", state=VersionState.REJECTED, parent="v1", base_model="smollm2", adapter_path="v2",
        adapter_sha256="1" * 64, cycle_id="c20261121T103000-1a2b",
        gates=(GateResult(
            name="flattery", passed=False, value=0.5, low=0.4, high=0.6, threshold=0.1, detail="half of the answers",
            cases=40, remedy="labels that prefer answers without it",
        ),),
        actor="trainer", reason="flattery: half of the answers",
    )),
    (3, Audit(actor="cli:ada", action="version_approval", target="v1", detail="read fifty answers")),
    (2, Cycle(
        cycle_id="c20261121T103000-1a2b", status=CycleStatus.AWAITING_APPROVAL, version="v1", trigger=Trigger.SCHEDULE,
        cost=Cost(seconds=12.5, money=0.01, currency="EUR", cpu_seconds=12.0, device_peak_bytes=1 << 30),
    )),
    (2, LabelTask(
        task_id="task-2", left=LEFT, right=RIGHT, reason="random", uncertainty=0.5, selection_probability=0.25,
        reward_model="c20261121T103000-1a2b", purposes=(Purpose.TRAINING, Purpose.LABELING), **DETAILS,
    )),
    (2, Label(
        task_id="task-2", labeler_id="labeler-1", verdict=Verdict.TIE, left=LEFT, right=RIGHT, seconds_taken=3.5,
        purposes=(Purpose.TRAINING, Purpose.LABELING), **DETAILS,
    )),
)  # fmt: skip
"""One for each further revision in schemas/published/released, saying what the revision before it could not."""


def stem(payload: Payload, revision: int) -> str:
    """The name of a golden event: the topic's, with the revision from the second one on."""
    return type_name(type(payload)) + (f".{revision}" if revision > 1 else "")


EXAMPLES: dict[str, Payload] = {stem(payload, 1): payload for payload in FIRST_REVISION} | {
    stem(payload, revision): payload for revision, payload in LATER_REVISIONS
}


def event_id(name: str) -> str:
    """The id of the golden event of this name: `golden-outputs`, `golden-outputs-2`."""
    _, kind, _, *revision = name.split(".")
    return "-".join(("golden", kind, *revision))


def main() -> None:
    """Write what is not there yet."""
    FOLDER.mkdir(exist_ok=True)
    for name, payload in EXAMPLES.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            continue
        message = encode(new_event(payload, source="golden", id=event_id(name), time=MOMENT))
        headers = {name: value.decode() for name, value in message.headers}
        body = {"key": message.key.decode(), "headers": headers, "value": json.loads(message.value)}
        path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
