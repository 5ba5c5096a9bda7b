"""Publishes the contracts: the JSON Schemas of all payloads and an AsyncAPI document; refuses what breaks a promise.

    python -m schemas.publish           write schemas/published/; exit 1 where a change is incompatible
    python -m schemas.publish --check   only compare

Whatever was published is a promise: `published/released/<topic>/<revision>.json` keeps it. A change that a machine
can notice makes the next revision; every event of every revision stays readable, and programs made for one read
today's events. Compatible is: a new optional field, a new enum value, a loosened bound. Incompatible is, among
others, a field removed, renamed, made required or optional, a type or a default changed, a bound tightened, an enum
value withdrawn (see schemas/compatibility.py). For those, make a `.v2` topic.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas import asyncapi, topics
from schemas.compatibility import incompatibilities, meaning, notes
from schemas.envelope import data_schema, type_name
from schemas.messages import Payload

FOLDER = Path(__file__).parent / "published"
ASYNCAPI = "asyncapi.json"


def json_schema(payload: type[Payload]) -> dict[str, Any]:
    """The payload's JSON Schema, under the id that `ce_dataschema` names."""
    body = payload.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": data_schema(payload)} | body


def released(name: str, folder: Path = FOLDER) -> dict[int, dict[str, Any]]:
    """Every schema that was ever published under a topic's name, by its revision, the first one first."""
    paths = sorted((folder / "released" / name).glob("*.json"), key=lambda path: int(path.stem))
    return {int(path.stem): json.loads(path.read_text()) for path in paths}


def breaks(name: str, today: dict[str, Any], folder: Path = FOLDER) -> Iterator[str]:
    """What in `today` would break an event or a program of any released revision, a line each."""
    for revision, schema in released(name, folder).items():
        for line in incompatibilities(schema, today):
            yield f"{name} revision {revision}: {line}"


def main(arguments: list[str] | None = None, folder: Path = FOLDER) -> int:
    """Write or check what is published; 1 where something can't be, or isn't, published as the code says."""
    parser = argparse.ArgumentParser(
        prog="python -m schemas.publish", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check = parser.parse_args(arguments).check
    schemas = {type_name(topic.payload): json_schema(topic.payload) for topic in topics.ALL}
    complaints = [line for name, schema in schemas.items() for line in breaks(name, schema, folder)]
    complaints += [f"{name}: was published and is no topic any more" for name in _withdrawn(folder)]
    if not complaints:
        plans = {path: text for name, schema in schemas.items() for path, text in _files(name, schema, folder)}
        complaints = _compare(plans, folder) if check else _write(plans, folder)
    for line in complaints:
        sys.stderr.write(line + "\n")
    return 1 if complaints else 0


def _withdrawn(folder: Path) -> list[str]:
    kept = (folder / "released").iterdir() if (folder / "released").is_dir() else ()
    return sorted({path.name for path in kept} - topics.BY_NAME.keys())


def _files(name: str, schema: dict[str, Any], folder: Path) -> Iterator[tuple[Path, str]]:
    """What ought to be on the disk for one topic: its schema, and the revision that it is."""
    yield folder / f"{name}.json", _text(schema)
    known = released(name, folder)
    if not known or meaning(known[max(known)]) != meaning(schema):
        yield folder / "released" / name / f"{max(known, default=0) + 1}.json", _text(schema)


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _asyncapi(folder: Path) -> str:
    return _text(asyncapi.document({topic.name: max(released(topic.name, folder), default=1) for topic in topics.ALL}))


def _compare(plans: dict[Path, str], folder: Path) -> list[str]:
    # The AsyncAPI document names the revisions, so it is compared once these are what they should be.
    plans = plans | {folder / ASYNCAPI: _asyncapi(folder)}
    stale = [path for path, text in plans.items() if not path.exists() or path.read_text() != text]
    return [f"{path.relative_to(folder)} is not what the code says: run python -m schemas.publish" for path in stale]


def _write(plans: dict[Path, str], folder: Path) -> list[str]:
    for path, text in plans.items():
        if path.parent != folder:
            _announce(path, json.loads(text), folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / ASYNCAPI).write_text(_asyncapi(folder))
    return []


def _announce(path: Path, schema: dict[str, Any], folder: Path) -> None:
    name, revision = path.parent.name, int(path.stem)
    sys.stderr.write(f"{name} has a new revision {revision}: add its golden event (tests/contract/make_golden.py)\n")
    for line in notes(released(name, folder)[revision - 1], schema) if revision > 1 else ():
        sys.stderr.write(f"  note for readers: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
