"""What a demo can be told."""

import pytest

from infra.demo import DemoOptions
from infra.demo.options import SMOLLM2, TINY, tuning_for
from schemas.errors import SettingsError


@pytest.mark.parametrize(
    ("field", "value"),
    [("cycles", 0), ("users", 0), ("noise", 0.5), ("noise", -0.1), ("spammers", -1), ("seed", -1)],
)
def test_an_option_that_cannot_work_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"--{field} must"):
        DemoOptions(**{field: value})  # type: ignore[arg-type]


def test_any_model_but_the_tiny_one_is_tuned_like_smollm2() -> None:
    assert tuning_for("tiny") is TINY
    assert tuning_for("/models/other") is SMOLLM2


def test_a_large_model_is_trained_by_two_processes_where_there_are_two_cores() -> None:
    told = [tuning.told(cores)["THUMBWHEEL_PROCESSES"] for tuning, cores in ((SMOLLM2, 8), (SMOLLM2, 1), (TINY, 8))]
    assert told == ["2", "1", "1"]
