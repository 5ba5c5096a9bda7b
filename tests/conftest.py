"""What the tests share: a real broker over a socket, and settings that leave the developer's machine alone.

With `THUMBWHEEL_TEST_BOOTSTRAP=host:port` the same tests run against any Kafka instead of the embedded broker.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No test is judged by its time: machines are shared.
settings.register_profile("thumbwheel", deadline=None)
settings.load_profile("thumbwheel")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
for name in [
    n for n in os.environ if n.startswith("THUMBWHEEL_") and not n.startswith(("THUMBWHEEL_TEST_", "THUMBWHEEL_MODELS"))
]:
    del os.environ[name]

ROOT = Path(__file__).parent.parent
os.environ["COLUMNS"] = "160"  # whatever terminal the tests are started from: tables look the same


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests take long go first, lest one worker be left with them at the end while the other is idle."""
    long = {name: n for n, name in enumerate(("e2e", "integration"))}
    items.sort(key=lambda item: long.get(item.path.relative_to(ROOT).parts[1], len(long)))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a running broker on which every topic exists. Shared: use ids of your own."""
    from infra.local.broker import EmbeddedBroker
    from infra.local.topics import create_topics
    from schemas.connection import KafkaConnection

    outside = os.environ.get("THUMBWHEEL_TEST_BOOTSTRAP")
    if outside:
        create_topics(KafkaConnection(bootstrap_servers=outside))
        yield outside
        return
    with EmbeddedBroker(tmp_path_factory.mktemp("broker") / "data") as running:
        create_topics(KafkaConnection(bootstrap_servers=running.bootstrap_servers))
        yield running.bootstrap_servers


@pytest.fixture
def fresh_broker(tmp_path: Path) -> Iterator[str]:
    """A broker of the test's own, with every topic and not one event."""
    from infra.local.broker import EmbeddedBroker
    from infra.local.topics import create_topics
    from schemas.connection import KafkaConnection

    with EmbeddedBroker(tmp_path / "broker") as running:
        create_topics(KafkaConnection(bootstrap_servers=running.bootstrap_servers))
        yield running.bootstrap_servers


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find out at once that no broker answers: for tests in which there is none."""
    for module in ("infra.local.log", "infra.local.topics", "infra.lake.audit"):
        monkeypatch.setattr(f"{module}.FIRST_ANSWER_SECONDS", 0.2)


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The folder of the tiny base model, as `make setup` prepares it; prepared here where it is missing."""
    from infra.models.catalog import prepare

    models = Path(os.environ.get("THUMBWHEEL_MODELS", ROOT / "models")).resolve()
    return Path(prepare("tiny", models))


@pytest.fixture(scope="session")
def human_data() -> Path:
    """The folder of real human feedback (`shared/data` beside the checkout); skips where it is absent."""
    for folder in (ROOT / "shared" / "data", ROOT.parent / "shared" / "data"):
        if folder.is_dir():
            return folder
    pytest.skip("no shared/data folder beside the checkout: tests on real human feedback need it")
