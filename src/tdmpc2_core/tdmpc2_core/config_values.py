"""Turns plain values (YAML, command line) into typed dataclasses, or says in one sentence why it cannot.

Settings classes use it through `tdmpc2_core.config`, which adds files, overrides and help.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from tdmpc2_core.config_words import closest, describe, expected
from tdmpc2_core.errors import UserError

T = TypeVar("T")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    factory: Any = dataclasses.MISSING,
    unit: str = "",
    why: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    rest: bool = False,
    **field_options: Any,
) -> Any:
    """A dataclass field that carries its unit, its reason and its range.

    low/high are inclusive, above/below exclusive; they hold for each number inside a tuple or mapping too.
    `rest=True` makes a ``dict[str, X]`` field collect the keys that no other field claims.
    `field_options` go to `dataclasses.field` (compare, hash, repr, ...).
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"unit": unit, "why": why, "rest": rest, **bounds}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata, **field_options)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a value stands: the file (or "command line") and the dotted key; and the range it must keep."""

    where: str
    key: str = ""
    rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def child(self, name: str, rules: Mapping[str, Any] | None = None) -> Place:
        """The place of key `name` inside this one."""
        key = f"{self.key}.{name}" if self.key else name
        return Place(self.where, key, self.rules if rules is None else rules)

    def item(self, index: int) -> Place:
        """The place of a list's item."""
        return Place(self.where, f"{self.key}[{index}]", self.rules)

    def error(self, message: str) -> UserError:
        """A sentence that starts with file and key."""
        return UserError(f"{self.where}: {self.key}: {message}" if self.key else f"{self.where}: {message}")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str, key: str = "") -> T:
    """Build the dataclass `cls` from `mapping`; `where` names the file and `key` the section in every error.

    Raises UserError for unknown or missing keys, wrong types, values out of range, and for the ValueError of
    the class's own `__post_init__`.
    """
    return convert(cls, mapping, Place(where, key))


def check_fields(instance: Any) -> None:
    """First line of a `__post_init__`: an instance made in code keeps its fields' types, choices and ranges.

    Values become the declared types, such as a list a tuple. Raises ValueError naming class and field.
    """
    cls: Any = type(instance)
    for f in dataclasses.fields(cls):
        place = Place(cls.__name__, f.name, f.metadata)
        try:
            value = convert(type_hints(cls)[f.name], getattr(instance, f.name), place)
        except UserError as problem:
            raise ValueError(str(problem)) from None
        object.__setattr__(instance, f.name, value)


def convert(hint: Any, value: Any, place: Place) -> Any:
    """`value` as the type `hint`, or a UserError that names `place` and what was expected."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _dataclass(hint, value, place)
    if origin is Literal:
        return _choice(typing.get_args(hint), value, place)
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(hint), value, place)
    if origin in (tuple, list):
        return _sequence(hint, value, place)
    if origin in (dict, Mapping):
        return _dict(typing.get_args(hint)[1], value, place)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value if isinstance(value, hint) else hint(_choice([c.value for c in hint], value, place))
    return _scalar(hint, value, place)


def type_hints(cls: type) -> dict[str, Any]:
    """The resolved annotations of a dataclass."""
    return _type_hints(cls)


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _dataclass(cls: Any, value: Any, place: Place) -> Any:
    if not isinstance(value, Mapping):
        raise place.error(f"expected a section with keys {_names(cls)}, got {describe(value)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = type_hints(cls)
    rest = next((f.name for f in fields.values() if f.metadata.get("rest")), None)
    named = {name: v for name, v in value.items() if name in fields and name != rest}
    unknown = {name: v for name, v in value.items() if name not in named}
    if unknown and rest is None:
        name = next(iter(unknown))
        raise place.error(f"unknown key {name!r}{closest(name, fields)}; accepted: {_names(cls)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in named and name != rest:
            raise place.error(f"key {name!r} is missing; it needs {expected(hints[name])}")
    made = {n: convert(hints[n], v, place.child(n, fields[n].metadata)) for n, v in named.items()}
    if rest is not None:
        made[rest] = _dict(typing.get_args(hints[rest])[1], unknown, place)
    try:
        return cls(**made)
    except ValueError as problem:
        raise place.error(str(problem)) from problem


def _choice(accepted: Iterable[Any], value: Any, place: Place) -> Any:
    for candidate in accepted:
        if candidate == value and isinstance(candidate, bool) == isinstance(value, bool):
            return candidate
    words = ", ".join(str(a) for a in accepted)
    raise place.error(f"expected one of {words}; got {describe(value)}{closest(value, map(str, accepted))}")


def _union(options: tuple[Any, ...], value: Any, place: Place) -> Any:
    if value is None and type(None) in options:
        return None
    real = [o for o in options if o is not type(None)]
    if len(real) == 1:
        return convert(real[0], value, place)
    sections = [o for o in real if isinstance(o, type) and dataclasses.is_dataclass(o)]
    tagged = [o for o in sections if "kind" in type_hints(o)]
    if tagged == real and isinstance(value, Mapping):
        return convert(_of_kind(tagged, value, place), value, place)
    for option in real:
        try:
            return convert(option, value, place)
        except UserError:
            continue
    raise place.error(f"expected {' or '.join(expected(o) for o in options)}, got {describe(value)}")


def _of_kind(options: list[Any], value: Mapping[str, Any], place: Place) -> Any:
    """The section whose `kind` is the one given; without one, the first that has a default for it."""
    kinds = {kind: o for o in options for kind in typing.get_args(type_hints(o)["kind"])}
    defaults = [o for o in options if isinstance(getattr(o, "kind", None), str)]
    if "kind" not in value and defaults:
        return defaults[0]
    if "kind" not in value:
        raise place.error(f"key 'kind' is missing; it needs one of {', '.join(kinds)}")
    return kinds[_choice(kinds, value["kind"], place.child("kind"))]


def _sequence(hint: Any, value: Any, place: Place) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise place.error(f"expected {expected(hint)}, got {describe(value)}")
    items = list(value)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(items) != len(args):
            raise place.error(f"expected {expected(hint)}, got {len(items)} value(s)")
        return tuple(convert(a, v, place.item(i)) for i, (a, v) in enumerate(zip(args, items, strict=True)))
    return origin(convert(args[0], v, place.item(i)) for i, v in enumerate(items))


def _dict(hint: Any, value: Any, place: Place) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise place.error(f"expected a section of names and values, got {describe(value)}")
    return {str(name): convert(hint, v, place.child(str(name))) for name, v in value.items()}


def _scalar(hint: Any, value: Any, place: Place) -> Any:
    if hint in (int, float):
        return _number(hint, value, place)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise place.error(f"expected {expected(hint)}, got {describe(value)}")


def _number(kind: type, value: Any, place: Place) -> float | int:
    unit = place.rules.get("unit")
    wanted = expected(kind) + (f" ({unit})" if unit else "")
    number = value
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            number = float(value)
        except ValueError:
            raise place.error(f"expected {wanted}, got {describe(value)}") from None
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise place.error(f"expected {wanted}, got {describe(value)}")
    if not math.isfinite(number):
        raise place.error(f"expected {wanted}, got {value}, which is not finite")
    if kind is int and number != math.trunc(number):
        raise place.error(f"expected {wanted}, got {value}")
    number = kind(number)
    check_range(number, place)
    return number


def check_range(number: float, place: Place) -> None:
    """Raise a UserError when `number` breaks the low/high/above/below of `place`."""
    tests = (
        ("low", number.__ge__, "at least"),
        ("high", number.__le__, "at most"),
        ("above", number.__gt__, "greater than"),
        ("below", number.__lt__, "less than"),
    )
    for rule, holds, words in tests:
        bound = place.rules.get(rule)
        if bound is not None and not holds(type(number)(bound)):
            unit = f" {place.rules['unit']}" if place.rules.get("unit") else ""
            raise place.error(f"must be {words} {bound:g}{unit}, got {number:g}")


def _names(cls: type) -> str:
    return ", ".join(f.name for f in dataclasses.fields(cls) if f.init and not f.metadata.get("rest"))
