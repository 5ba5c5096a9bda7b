"""One broker process for the tests of a module, started by its own command line."""

from collections.abc import Iterator

import pytest

from tests.integration.broker.kit import BrokerProcess, Kit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """The broker of this module; its tests share it, so they use topics and groups of their own."""
    with BrokerProcess(tmp_path_factory.mktemp("broker") / "data") as running:
        yield running
        assert running.alive, running.log_tail()


@pytest.fixture(scope="module")
def kit(server: BrokerProcess) -> Kit:
    return Kit(server.bootstrap)
