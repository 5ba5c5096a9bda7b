"""A made-up run: its cycles and versions as they come from the log."""

from datetime import UTC, datetime, timedelta

from infra.demo.progress import Progress
from schemas.cycles import Cost, Cycle, CycleStatus, Stage
from schemas.versions import GateResult, ModelVersion, VersionState, move

START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
GATE = GateResult(name="win_rate", passed=True, value=0.7, low=0.6, high=0.8, threshold=0.5, detail="by <judges>")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def cycle(status: CycleStatus, *, id: str = "c1", seconds: float = 0.0, **more: object) -> Cycle:
    return Cycle(cycle_id=id, status=status, cost=Cost(seconds=seconds), **more)  # type: ignore[arg-type]


def registered(version: str, *, parent: str | None = None, cycle_id: str | None = None) -> ModelVersion:
    gates = () if version == "base" else (GATE,)
    kl = None if version == "base" else 3.0
    return ModelVersion(
        version=version, state=VersionState.REGISTERED, parent=parent, base_model="tiny", cycle_id=cycle_id,
        gates=gates, kl=kl, actor="trainer",
    )  # fmt: skip


def live(event: ModelVersion) -> ModelVersion:
    return move(event, VersionState.LIVE, actor="rollout", reason="all gates passed")


def one_cycle() -> Progress:
    """The base served; one cycle made v1, which went live; the base retired."""
    base = live(registered("base"))
    v1 = registered("v1", parent="base", cycle_id="c1")
    progress = Progress().moved(registered("base"), at(0)).moved(base, at(0))
    progress = progress.heard(cycle(CycleStatus.STARTED), at(60))
    progress = progress.heard(cycle(CycleStatus.STAGE_DONE, stage=Stage.PIN, seconds=2), at(62))
    progress = progress.heard(cycle(CycleStatus.STAGE_DONE, stage=Stage.REWARD_MODEL, seconds=12), at(72))
    progress = progress.heard(
        cycle(CycleStatus.PROGRESS, stage=Stage.POLICY, seconds=20, fraction=0.5, metrics={"kl": 1.5}), at(80)
    )
    progress = progress.moved(v1, at(90)).moved(live(v1), at(91))
    progress = progress.moved(move(base, VersionState.RETIRED, actor="rollout", reason="succeeded by v1"), at(91))
    return progress.heard(cycle(CycleStatus.FINISHED, seconds=40, version="v1"), at(100))
