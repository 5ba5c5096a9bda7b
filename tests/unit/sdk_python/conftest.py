"""The SDK from its folder, and a small gateway over a socket that can be told to misbehave."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SDK = Path(__file__).parents[3] / "sdk"
for folder in (SDK / "python", SDK / "redaction"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from tests.unit.sdk_python.small_gateway import SmallGateway  # noqa: E402


@pytest.fixture
def gateway() -> Iterator[SmallGateway]:
    with SmallGateway() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THUMBWHEEL_URL", raising=False)
    monkeypatch.delenv("THUMBWHEEL_API_KEY", raising=False)
