"""Whether one JSON Schema may follow another on the same topic. Two questions are asked of every place in it:

1. Does today's code read what was written under the old schema? A no is a break: old events are read for ever.
2. Does a program made for the old schema read what is written today? It passes over fields that it doesn't know.
   A no is a break where it trips over every such event, or reads something else than was meant (another type, a
   field that may be absent, another default), and a note where it meets a value beyond those it knew (a new enum
   value, a wider bound): releases do that, and readers are told.

What the comparison does not understand and finds changed it calls a break; it never passes over a keyword. What a
validator in code refuses beyond the schema it can't see: the golden events hold that.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

Node = dict[str, Any]
Limit = tuple[float, int]
"""A bound as something that only grows when it gets tighter: (the limit, negated if an upper one; 1 if exclusive)."""

_ANNOTATIONS = frozenset({"title", "description", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
_IDENTITY = frozenset({"$schema", "$id", "$defs", "definitions"})
_UNIONS = ("anyOf", "oneOf")
_SIZES = ("Length", "Items", "Properties")
_EXACT = ("pattern", "format", "multipleOf")
_UNDERSTOOD = (
    _ANNOTATIONS
    | _IDENTITY
    | {"$ref", "type", "enum", "const", "default", "discriminator", "uniqueItems", *_UNIONS, *_EXACT}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {bound + size for bound in ("min", "max") for size in _SIZES}
    | {"properties", "required", "additionalProperties", "items", "prefixItems"}
)


@dataclass(frozen=True)
class Finding:
    """What has changed at one place of a schema, and whether it breaks somebody or is only worth a note."""

    where: str
    what: str
    breaks: bool = True

    def __str__(self) -> str:
        return f"{self.where or 'payload'}: {self.what}"


def findings(old: Node, new: Node) -> list[Finding]:
    """All that an old event, or a program made for `old`, would notice of `new`."""
    return list(_Comparison(old, new).nodes(old, new, ""))


def incompatibilities(old: Node, new: Node) -> list[str]:
    """What an event or a program made for `old` would stumble over in `new`, a line each."""
    return [str(finding) for finding in findings(old, new) if finding.breaks]


def notes(old: Node, new: Node) -> list[str]:
    """Values that a program made for `old` doesn't know, and may meet now, a line each."""
    return [str(finding) for finding in findings(old, new) if not finding.breaks]


def meaning(node: Any) -> Any:
    """The schema without its words: what is left is what a machine acts on."""
    if isinstance(node, list):
        return [meaning(part) for part in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    fields = cast(Node, node)
    # Below `properties` and `$defs` the keys are names: a field may well be called `title`.
    return {
        name: {n: meaning(part) for n, part in value.items()} if name in ("properties", "$defs") else meaning(value)
        for name, value in fields.items()
        if name not in _ANNOTATIONS
    }


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _named(values: Iterable[str]) -> str:
    return ", ".join(sorted(value.strip('"') for value in values))


def _constraints(node: Node) -> Node:
    return {name: value for name, value in node.items() if name not in _ANNOTATIONS | _IDENTITY | {"default"}}


@dataclass(frozen=True)
class _Comparison:
    old_root: Node
    new_root: Node
    open: set[str] = field(default_factory=set[str])

    def nodes(self, old: Node, new: Node, where: str) -> Iterator[Finding]:
        """Compare two nodes, each of which may be a reference or a union; what it yields is ordered by place."""
        pair = _text([old, new])
        if pair in self.open:  # a definition that holds itself: compared further up already
            return
        self.open.add(pair)
        yield from self._alternatives(_split(old, self.old_root), _split(new, self.new_root), where)
        self.open.remove(pair)

    def _alternatives(self, before: list[Node], after: list[Node], where: str) -> Iterator[Finding]:
        was, now = ([_kind(node) for node in nodes] for nodes in (before, after))
        lost = [kind for kind in dict.fromkeys(was) if kind not in now]
        for kind in lost:
            yield Finding(where, f"was {kind}, now {' or '.join(dict.fromkeys(now))}")
        kept: list[Node] = []
        for node in before:
            choices = [other for other in after if _kind(other) == _kind(node)]
            if choices:
                best, found = self._closest(node, choices, where)
                kept.append(best)
                yield from found
        for node in after:
            if node in kept or lost or any(self._same(other, node) for other in before):
                continue
            if _kind(node) in was:
                yield Finding(where, f"has another form of {_kind(node)} now", breaks=False)
            else:
                yield Finding(where, f"may be {_kind(node)} now; readers of today expect {' or '.join(was)}")

    def _same(self, old: Node, new: Node) -> bool:
        return _kind(old) == _kind(new) and not any(self._plain(old, new, ""))

    def _closest(self, node: Node, choices: list[Node], where: str) -> tuple[Node, list[Finding]]:
        """The alternative that takes the most of what `node` took; between equals the one of the same name."""
        tried = [(choice, list(self._plain(node, choice, where))) for choice in choices]

        def distance(trial: tuple[Node, list[Finding]]) -> tuple[int, bool, int]:
            choice, found = trial
            return sum(f.breaks for f in found), choice.get("title") != node.get("title"), len(found)

        return min(tried, key=distance)

    def _plain(self, old: Node, new: Node, where: str) -> Iterator[Finding]:
        yield from _values(old, new, where)
        yield from _bounds(old, new, where)
        yield from _exact(old, new, where)
        yield from self._not_understood(old, new, where)
        yield from self._items(old, new, where)
        yield from self._fields(old, new, where)

    def _not_understood(self, old: Node, new: Node, where: str) -> Iterator[Finding]:
        for name in sorted((old.keys() | new.keys()) - _UNDERSTOOD):
            texts = [
                _text([node.get(name), root.get("$defs") if "$ref" in _text(node.get(name)) else None])
                for node, root in ((old, self.old_root), (new, self.new_root))
            ]
            if texts[0] != texts[1]:
                yield Finding(where, f"`{name.lstrip('~')}` changed, which this check can't judge")

    def _items(self, old: Node, new: Node, where: str) -> Iterator[Finding]:
        fixed = [cast(list[Any], node.get("prefixItems", [])) for node in (old, new)]
        if len(fixed[0]) != len(fixed[1]):
            yield Finding(where, f"began with {len(fixed[0])} fixed items, now with {len(fixed[1])}")
        for index, (was, now) in enumerate(zip(*fixed, strict=False)):
            yield from self._schemas(was, now, f"{where}[{index}]")
        yield from self._schemas(old.get("items", True), new.get("items", True), f"{where}[]")

    def _fields(self, old: Node, new: Node, where: str) -> Iterator[Finding]:
        old_fields, new_fields = (cast(Node, node.get("properties", {})) for node in (old, new))
        old_rest, new_rest = (node.get("additionalProperties", True) for node in (old, new))
        for name, was in old_fields.items():
            path = f"{where}.{name}".lstrip(".")
            if name not in new_fields:
                yield Finding(path, "the field is gone")
                continue
            found = list(self._schemas(was, new_fields[name], path))
            yield from found
            if not any(finding.breaks for finding in found):
                yield from _default(name, old, new, path)
        for name in new_fields.keys() - old_fields.keys():
            if old_rest is not False:  # old events may hold a field of this name, of the kind that all others have
                yield from self._schemas(old_rest, new_fields[name], f"{where}.{name}".lstrip("."))
        yield from _required(old, new, where)
        yield from self._schemas(old_rest, new_rest, f"{where}.*".lstrip("."))

    def _schemas(self, old: Any, new: Any, where: str) -> Iterator[Finding]:
        """As `nodes`, where a schema may also be `true` (anything) or `false` (nothing)."""
        if old is not False and new is not False:
            was, now = (cast(Node, {} if schema is True else schema) for schema in (old, new))
            yield from self.nodes(was, now, where)
        elif old is not False:
            yield Finding(where, "can't be there any more")
        elif new is not False:
            yield Finding(where, "may be there now, and could not", breaks=False)


def _split(node: Node, root: Node) -> list[Node]:
    """A node's alternatives, each of one type, with references followed."""
    constraints = _constraints(node)
    for name in ("$ref", *_UNIONS):
        if name not in constraints:
            continue
        inner = [_follow(node["$ref"], root)] if name == "$ref" else cast(list[Node], node[name])
        parts = [part for option in inner for part in _split(option, root)]
        # Marks under names that no schema has: that they are equal or not is all that can be said of them.
        marks: Node = {n: value for n, value in constraints.items() if n not in (name, "discriminator")}
        marks = {"~allOf": marks} if marks else {}
        if name == "oneOf":  # exactly one must hold: a tag tells which, or else no other may be added
            marks["~oneOf"] = cast(Node, node.get("discriminator", {})).get("propertyName") or meaning(node[name])
        return [part | marks for part in parts] if marks else parts
    kinds: Any = node.get("type")
    return [node | {"type": kind} for kind in cast(list[str], kinds)] if isinstance(kinds, list) else [node]


def _follow(reference: str, root: Node) -> Node:
    node: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return cast(Node, node)


def _kind(node: Node) -> str:
    return str(node.get("type", "any"))


def _values(old: Node, new: Node, where: str) -> Iterator[Finding]:
    was, now = _choices(old), _choices(new)
    if was is None and now is not None:
        yield Finding(where, f"took any value, now only {_named(now)}")
    elif was is not None and now is None:
        yield Finding(where, "takes any value now", breaks=False)
    elif was is not None and now is not None:
        if was - now:
            yield Finding(where, f"the values {_named(was - now)} are gone")
        if now - was:
            yield Finding(where, f"the values {_named(now - was)} are new", breaks=False)


def _choices(node: Node) -> set[str] | None:
    if "const" in node:
        return {_text(node["const"])}
    return {_text(value) for value in node["enum"]} if "enum" in node else None


def _bounds(old: Node, new: Node, where: str) -> Iterator[Finding]:
    for name, (limit, sign) in _LIMITS.items():
        was, now = limit(old), limit(new)
        change = f"{_bound(was, sign)} before, {_bound(now, sign)} now"
        if now > was:
            yield Finding(where, f"{name} is tighter: {change}")
        elif now < was:
            yield Finding(where, f"{name} is wider: {change}", breaks=False)
    if new.get("uniqueItems", False) != old.get("uniqueItems", False):
        yield Finding(where, "uniqueItems changed", breaks=bool(new.get("uniqueItems")))


def _lower(node: Node) -> Limit:
    return _limit(node, 1)


def _upper(node: Node) -> Limit:
    return _limit(node, -1)


def _at_least(name: str) -> Callable[[Node], Limit]:
    return lambda node: (node.get(name, 0), 0)


def _at_most(name: str) -> Callable[[Node], Limit]:
    return lambda node: (-node[name] if name in node else -math.inf, 0)


def _limit(node: Node, sign: int) -> Limit:
    name = "inimum" if sign > 0 else "aximum"
    inclusive, exclusive = node.get("m" + name), node.get("exclusiveM" + name)
    limits = [(inclusive * sign, 0)] if inclusive is not None else []
    limits += [(exclusive * sign, 1)] if exclusive is not None else []
    limit, open_ended = max(limits, default=(-math.inf, 0))
    if _kind(node) == "integer" and math.isfinite(limit):  # above 0 and at least 1 are the same thing
        return (math.floor(limit) + 1 if open_ended else math.ceil(limit)), 0
    return limit, open_ended


def _bound(bound: Limit, sign: int) -> str:
    limit, exclusive = bound
    return "none" if math.isinf(limit) else f"{limit * sign:g}{' (exclusive)' if exclusive else ''}"


_LIMITS: dict[str, tuple[Callable[[Node], Limit], int]] = {
    "lower bound": (_lower, 1),
    "upper bound": (_upper, -1),
    **{f"min{size}": (_at_least(f"min{size}"), 1) for size in _SIZES},
    **{f"max{size}": (_at_most(f"max{size}"), -1) for size in _SIZES},
}


def _exact(old: Node, new: Node, where: str) -> Iterator[Finding]:
    for name in _EXACT:
        was, now = old.get(name), new.get(name)
        if was != now:
            loosened = now is None and name != "format"
            yield Finding(where, f"{name} was {was or 'any'}, now {now or 'any'}", breaks=not loosened)


def _required(old: Node, new: Node, where: str) -> Iterator[Finding]:
    was, now = set(old.get("required", [])), set(new.get("required", []))
    for name in sorted(now - was):
        yield Finding(f"{where}.{name}".lstrip("."), "is required now, and was not")
    for name in sorted((was - now) & new.get("properties", {}).keys()):
        yield Finding(f"{where}.{name}".lstrip("."), "may be left out now; readers of today need it")


def _default(name: str, old: Node, new: Node, path: str) -> Iterator[Finding]:
    if name in old.get("required", []) or name in new.get("required", []):
        return
    was, now = (node["properties"][name] for node in (old, new))
    if not isinstance(was, dict) or not isinstance(now, dict) or ("default" not in was and "default" not in now):
        return
    told = [_text(node["default"]) if "default" in node else "unsaid" for node in cast(list[Node], [was, now])]
    if told[0] != told[1]:
        # A default that the schema doesn't state (a factory's) may well be the same one.
        yield Finding(path, f"where left out it was {told[0]}, now {told[1]}", breaks="unsaid" not in told)
