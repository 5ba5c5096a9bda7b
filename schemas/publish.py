"""Publishes the JSON Schemas of all payloads, and refuses a change that would break a reader or a writer of today.

    python -m schemas.publish           write schemas/published/*.json; exit 1 where a change is incompatible
    python -m schemas.publish --check   only compare

Compatible is: a new optional field, a new enum value, a loosened bound that no old event violates. Incompatible:
a field removed, renamed or made required, a type changed, an enum value withdrawn. For those, make a `.v2` topic.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from schemas import topics
from schemas.envelope import data_schema, type_name
from schemas.messages import Payload

FOLDER = Path(__file__).parent / "published"


def json_schema(payload: type[Payload]) -> dict[str, Any]:
    """The payload's JSON Schema, under the id that `ce_dataschema` names."""
    body = payload.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": data_schema(payload)} | body


def incompatibilities(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What an event or a program made for `old` would stumble over in `new`, a line each."""
    return list(_compare(old, new, old.get("$defs", {}), new.get("$defs", {}), ""))


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return definitions[reference.rsplit("/", 1)[1]] if isinstance(reference, str) else node


def _kinds(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The alternatives of a node by JSON type: `X | None` has two."""
    options = cast(list[dict[str, Any]], node.get("anyOf", [node]))
    resolved = [_resolve(option, definitions) for option in options]
    return {str(option.get("type", "any")): option for option in resolved}


def _compare(
    old: dict[str, Any], new: dict[str, Any], old_defs: dict[str, Any], new_defs: dict[str, Any], where: str
) -> Iterator[str]:
    before, after = _kinds(old, old_defs), _kinds(new, new_defs)
    for kind, was in before.items():
        now = after.get(kind)
        if now is None:
            yield f"{where or 'payload'}: was {kind}, now {' or '.join(after)}"
            continue
        withdrawn = set(map(str, was.get("enum", []))) - set(map(str, now.get("enum", was.get("enum", []))))
        if withdrawn:
            yield f"{where}: the values {', '.join(sorted(withdrawn))} are gone"
        if kind == "object":
            yield from _compare_objects(was, now, old_defs, new_defs, where)
        elif kind == "array" and "items" in was and "items" in now:
            yield from _compare(was["items"], now["items"], old_defs, new_defs, f"{where}[]")


def _compare_objects(
    was: dict[str, Any], now: dict[str, Any], old_defs: dict[str, Any], new_defs: dict[str, Any], where: str
) -> Iterator[str]:
    old_fields, new_fields = was.get("properties", {}), now.get("properties", {})
    for name, field in old_fields.items():
        path = f"{where}.{name}" if where else name
        if name not in new_fields:
            yield f"{path}: the field is gone"
        else:
            yield from _compare(field, new_fields[name], old_defs, new_defs, path)
    for name in sorted(set(now.get("required", [])) - set(was.get("required", []))):
        yield f"{where}.{name}".lstrip(".") + ": is required now, and was not"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the published schemas; the number of payloads that can't be published decides the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m schemas.publish", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check = parser.parse_args(arguments).check
    return 1 if sum(_publish(topic.payload, check=check) for topic in topics.ALL) else 0


def _publish(payload: type[Payload], *, check: bool) -> bool:
    path, today = FOLDER / f"{type_name(payload)}.json", json_schema(payload)
    text = json.dumps(today, indent=2) + "\n"
    published = path.read_text() if path.exists() else None
    breaks = incompatibilities(json.loads(published), today) if published else []
    for line in breaks:
        sys.stderr.write(f"{path.name}: {line}\n")
    if check and published != text:
        sys.stderr.write(f"{path.name} is not what the code says: run python -m schemas.publish\n")
        return True
    if not breaks and not check:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text)
    return bool(breaks)


if __name__ == "__main__":
    sys.exit(main())
