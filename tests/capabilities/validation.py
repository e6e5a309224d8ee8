"""JSON Schema as far as `schema.json` goes: every keyword that is in it, and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (Mapping,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
}


class Schema:
    """A schema of draft 2020-12."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.whole = schema

    def takes(self, value: object, part: Mapping[str, Any] | None = None) -> bool:
        """Return whether a value is valid, by all of the schema or a part of it."""
        part = self.whole if part is None else part
        return all(
            getattr(self, f"_{name.strip('$').replace('if', 'condition')}")(rule, value, part)
            for name, rule in part.items()
        )

    def _nothing(self, *_: object) -> bool:
        return True

    _schema = _title = _description = _comment = _defs = _then = _else = _nothing

    def _ref(self, rule: str, value: object, _: object) -> bool:
        part: Any = self.whole
        for name in rule.removeprefix("#/").split("/"):
            part = part[name]
        return self.takes(value, part)

    def _type(self, rule: str, value: object, _: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, TYPES[rule]):
            return False
        # "any number with a zero fractional part", which TOML tells from a whole one
        return rule != "integer" or isinstance(value, int) or value == int(value)  # type: ignore[call-overload]

    def _const(self, rule: object, value: object, _: object) -> bool:
        return rule == value and not isinstance(value, bool)

    def _enum(self, rule: list[object], value: object, _: object) -> bool:
        return value in rule

    def _anyOf(self, rule: list[Any], value: object, _: object) -> bool:  # noqa: N802
        return any(self.takes(value, part) for part in rule)

    def _allOf(self, rule: list[Any], value: object, _: object) -> bool:  # noqa: N802
        return all(self.takes(value, part) for part in rule)

    def _condition(self, rule: Any, value: object, part: Mapping[str, Any]) -> bool:
        chosen = part.get("then" if self.takes(value, rule) else "else")
        return chosen is None or self.takes(value, chosen)

    def _minimum(self, rule: float, value: Any, _: object) -> bool:
        return not isinstance(value, (int, float)) or value >= rule

    def _maximum(self, rule: float, value: Any, _: object) -> bool:
        return not isinstance(value, (int, float)) or value <= rule

    def _minItems(self, rule: int, value: object, _: object) -> bool:  # noqa: N802
        return not isinstance(value, list) or len(value) >= rule

    def _maxItems(self, rule: int, value: object, _: object) -> bool:  # noqa: N802
        return not isinstance(value, list) or len(value) <= rule

    def _pattern(self, rule: str, value: object, _: object) -> bool:
        # In ECMA-262 the end is the end, and not also before a line feed there.
        ends = re.sub(r"(?<!\\)\$", r"\\Z", rule)
        return not isinstance(value, str) or bool(re.search(ends, value))

    def _items(self, rule: Any, value: object, _: object) -> bool:
        return not isinstance(value, list) or all(self.takes(item, rule) for item in value)

    def _required(self, rule: list[str], value: object, _: object) -> bool:
        return not isinstance(value, Mapping) or value.keys() >= {*rule}

    def _properties(self, rule: Mapping[str, Any], value: object, _: object) -> bool:
        if not isinstance(value, Mapping):
            return True
        return all(self.takes(value[name], part) for name, part in rule.items() if name in value)

    def _propertyNames(self, rule: Any, value: object, _: object) -> bool:  # noqa: N802
        return not isinstance(value, Mapping) or all(self.takes(name, rule) for name in value)

    def _additionalProperties(  # noqa: N802
        self, rule: Any, value: object, part: Mapping[str, Any]
    ) -> bool:
        if not isinstance(value, Mapping):
            return True
        others = [item for name, item in value.items() if name not in part.get("properties", {})]
        return not others if rule is False else all(self.takes(item, rule) for item in others)
