"""The documents say what the code says, and the other way round."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from infra import fields, reference
from schemas import tables, topics

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_is_what_the_code_says() -> None:
    assert reference.FILE.read_text() == reference.render(), "run python -m infra.reference"


def test_every_topic_table_and_command_is_in_the_reference() -> None:
    text = reference.FILE.read_text()
    names = [t.name for t in topics.ALL] + [t.path for t in tables.ALL]
    names += ["thumbwheel demo", "thumbwheel versions rollback", "THUMBWHEEL_KAFKA__BOOTSTRAP_SERVERS"]
    assert [name for name in names if f"`{name}`" not in text] == []


MODELS = {model for topic in topics.ALL for model in (topic.payload, *fields.inner_models(topic.payload))} | {
    model for table in tables.ALL for model in (table.row, *fields.inner_models(table.row))
}


@pytest.mark.parametrize("model", sorted(MODELS, key=lambda m: m.__name__), ids=lambda m: m.__name__)
def test_every_field_of_every_event_and_table_is_listed_with_its_meaning(model: type[BaseModel]) -> None:
    text = reference.FILE.read_text()
    described = list(fields.described(model))
    assert [field.name for field in described] == list(model.model_fields)
    silent = [field.name for field in described if not field.meaning]
    assert silent == [], "say what it means in the model's docstring, or in infra/fields.py"
    assert [field.name for field in described if f"| `{field.name}` |" not in text] == []


def test_the_glossary_explains_only_what_exists() -> None:
    names = {name for model in MODELS | {tables.EnvelopeColumns} for name in model.model_fields}
    owners = {f"{base.__name__}.{name}" for model in MODELS for base in model.__mro__ for name in model.model_fields}
    assert [name for name in fields.GLOSSARY if name not in names | owners] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_names_a_topic_or_a_command_that_does_not_exist(page: Path) -> None:
    text = page.read_text()
    known_topics = {t.name for t in topics.ALL} | {t.dlq for t in topics.ALL}
    assert set(re.findall(r"thumbwheel\.[a-z-]+\.v\d(?:\.dlq)?", text)) <= known_topics
    commands = {row.split("`")[1] for row in reference.render().splitlines() if row.startswith("| `thumbwheel ")}
    first_words = {" ".join(c.split()[:2]) for c in commands}
    named = re.findall(r"(?:^|`|/)thumbwheel ([a-z][a-z-]*)", text, flags=re.MULTILINE)
    assert {f"thumbwheel {word}" for word in named} <= first_words


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
