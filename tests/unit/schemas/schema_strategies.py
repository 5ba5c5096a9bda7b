"""Hypothesis strategies: small JSON Schemas of the kind pydantic writes, mutations of one, and events of one."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

from hypothesis import strategies as st

Node = dict[str, Any]
DEFINITION = {"$ref": "#/$defs/Part"}
PATTERNS = ("^[ab]{1,3}$", "^a")
WORDS = st.text("abc", max_size=5)


def _bounds(least: str, most: str, low: int, high: int) -> st.SearchStrategy[Node]:
    return st.tuples(st.integers(low, high), st.integers(0, 3), st.sets(st.sampled_from((least, most)))).map(
        lambda drawn: {
            name: value for name, value in {least: drawn[0], most: drawn[0] + drawn[1]}.items() if name in drawn[2]
        }
    )


OF_ONE_KIND: tuple[st.SearchStrategy[Node], ...] = (
    _bounds("minLength", "maxLength", 0, 3).map(lambda bounds: {"type": "string", **bounds}),
    st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(
        lambda values: {"type": "string", "enum": values}
    ),
    st.sampled_from("ab").map(lambda value: {"type": "string", "const": value}),
    st.tuples(st.sampled_from(("integer", "number")), _bounds("minimum", "maximum", -3, 3)).map(
        lambda drawn: {"type": drawn[0], **drawn[1]}
    ),
    _bounds("exclusiveMinimum", "maximum", -3, 0).map(lambda bounds: {"type": "integer", **bounds}),
    st.just({"type": "boolean"}),
    st.just({}),
)
SCALARS: st.SearchStrategy[Node] = st.one_of(OF_ONE_KIND)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Node]) -> Node:
    """An object with some of the fields a to c, of which some are required; closed, open, or a map."""
    fields = draw(st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
    node: Node = {"type": "object", "properties": fields}
    if fields:
        node["required"] = draw(st.lists(st.sampled_from(sorted(fields)), unique=True))
    rest = draw(st.one_of(st.just(False), st.just(False), st.none(), inner))
    return node if rest is None else node | {"additionalProperties": rest}


def arrays(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.tuples(inner, _bounds("minItems", "maxItems", 0, 2)).map(
        lambda drawn: {"type": "array", "items": drawn[0], **drawn[1]}
    )


def _nested(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    nullable = inner.map(lambda node: {"anyOf": [node, {"type": "null"}]})
    return st.one_of(arrays(inner), objects(inner), unions, nullable)


NODES = st.recursive(SCALARS | st.just(DEFINITION), _nested, max_leaves=6)


@st.composite
def schemas(draw: st.DrawFn) -> Node:
    """A closed object with a definition that others refer to, as a payload's schema is."""
    part = draw(objects(SCALARS))
    return draw(objects(NODES)) | {"$defs": {"Part": part}}


def related() -> st.SearchStrategy[tuple[Node, Node]]:
    """Two schemas of the same kind, that differ in their bounds, values, fields or items: most pairs say something."""
    closed = objects(st.sampled_from(({"type": "string"}, {"type": "integer"})))
    kinds = (*OF_ONE_KIND, closed, arrays(st.just({"type": "boolean"})))
    return st.sampled_from(kinds).flatmap(lambda kind: st.tuples(kind, kind))


def places(node: Any) -> Iterator[Node]:
    """Every schema inside a schema, itself included: what a mutation can take hold of."""
    if not isinstance(node, dict):
        return
    schema = cast(Node, node)
    yield schema
    for name in ("properties", "$defs"):
        for child in schema.get(name, {}).values():
            yield from places(child)
    for child in [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", [])]:
        yield from places(child)


def _replace(place: Node, node: Node) -> None:
    definitions = {"$defs": place["$defs"]} if "$defs" in place else {}
    place.clear()
    place.update(node | definitions)


@st.composite
def mutated(draw: st.DrawFn, schema: Node) -> Node:
    """The schema after one or two changes of the kinds that releases make, well-meant or not."""
    after = copy.deepcopy(schema)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(list(places(after))))
        changes: list[Callable[[], Any]] = [
            lambda place=place: _replace(place, draw(SCALARS)),
            lambda place=place: _replace(place, {"anyOf": [_without_definitions(place), {"type": "null"}]}),
            lambda place=place: place.update(draw(SCALARS)),
        ]
        for name in sorted(place.keys() - {"$defs", "$ref"}):
            changes.append(lambda place=place, name=name: _alter(draw, place, name))
        draw(st.sampled_from(changes))()
    return after


def _without_definitions(place: Node) -> Node:
    return {name: value for name, value in place.items() if name != "$defs"}


def _alter(draw: st.DrawFn, place: Node, name: str) -> None:
    value = place[name]
    if draw(st.integers(0, 3)) == 0 and name != "anyOf":
        del place[name]
    elif isinstance(value, bool):
        place[name] = not value
    elif isinstance(value, int):
        place[name] = max(value + draw(st.sampled_from((-1, 1))), 0 if "M" not in name and "min" not in name else value)
    elif name == "type":
        place[name] = draw(st.sampled_from(("string", "integer", "number", "boolean", "object", "array")))
    elif name == "properties":
        field = draw(st.sampled_from("abcd"))
        if value.pop(field, None) is None:
            value[field] = draw(NODES)
    elif name == "required":
        field = draw(st.sampled_from("abcd"))
        place[name] = [n for n in value if n != field] if field in value else [*value, field]
    elif name == "enum":
        word = draw(st.sampled_from("abcd"))
        place[name] = [n for n in value if n != word] or [word] if word in value else [*value, word]
    elif name == "anyOf":
        place[name] = value[1:] if len(value) > 1 and draw(st.booleans()) else [*value, draw(SCALARS)]
    elif name == "pattern":
        place[name] = draw(st.sampled_from(PATTERNS))


def events(schema: Any, root: Node) -> st.SearchStrategy[Any]:
    """Values that the schema takes; leans to the edges of what it allows."""
    if not isinstance(schema, dict) or not (schema.keys() - {"$defs"}):
        return st.sampled_from([None, True, 1, 0.5, "a", [], {}]) if schema is not False else st.nothing()
    node = cast(Node, schema)
    if "$ref" in node:
        return events(root["$defs"]["Part"], root)
    if "anyOf" in node:
        return st.one_of([events(option, root) for option in node["anyOf"]])
    if "const" in node:
        return st.just(node["const"])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    return _OF_TYPE[node.get("type", "any")](node, root)


def _numbers(node: Node, step: float) -> st.SearchStrategy[float]:
    low = node.get("minimum", node.get("exclusiveMinimum", -6) + (step if "exclusiveMinimum" in node else 0))
    high = node.get("maximum", max(low, 6))
    if high < low:
        return st.nothing()
    most = int((high - low) / step)
    return st.one_of(st.sampled_from((0, most)), st.integers(0, most)).map(lambda n: low + n * step)


def _strings(node: Node, _root: Node) -> st.SearchStrategy[str]:
    if "pattern" in node:
        return st.from_regex(node["pattern"], alphabet="abc", fullmatch=True)
    low = node.get("minLength", 0)
    high = node.get("maxLength", max(low, 6))
    if low > high:
        return st.nothing()
    return st.sampled_from((low, high)).flatmap(lambda n: st.text("abc", min_size=n, max_size=n))


def _lists(node: Node, root: Node) -> st.SearchStrategy[Any]:
    low, items = node.get("minItems", 0), events(node.get("items", True), root)
    if items.is_empty:
        return st.nothing() if low else st.just([])
    high = node.get("maxItems", max(low, 4))
    if low > high:
        return st.nothing()
    return st.sampled_from((low, high)).flatmap(lambda n: st.lists(items, min_size=n, max_size=n))


def _maps(node: Node, root: Node) -> st.SearchStrategy[Any]:
    fields = {name: events(child, root) for name, child in node.get("properties", {}).items()}
    required = set(node.get("required", []))
    rest = node.get("additionalProperties", True)
    named = st.fixed_dictionaries(
        {name: fields.get(name, events(rest, root)) for name in sorted(required)},
        optional={name: child for name, child in fields.items() if name not in required and not child.is_empty},
    )
    values = events(rest, root)
    if values.is_empty:
        return named
    others = st.dictionaries(st.sampled_from([n for n in "abcde" if n not in fields]), values, max_size=2)
    return st.tuples(others, named).map(lambda drawn: drawn[0] | drawn[1])


_OF_TYPE: dict[str, Callable[[Node, Node], st.SearchStrategy[Any]]] = {
    "string": _strings,
    "integer": lambda node, _root: _numbers(node, 1).map(int),
    "number": lambda node, _root: _numbers(node, 0.5),
    "boolean": lambda _node, _root: st.booleans(),
    "null": lambda _node, _root: st.none(),
    "array": _lists,
    "object": _maps,
    "any": lambda _node, _root: st.sampled_from([None, True, 1, 0.5, "a", "abc", [], {}]),
}
