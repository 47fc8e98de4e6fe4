"""Settings as typed dataclasses, from YAML and the command line, or one sentence that says what is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import logging
import math
import numbers
import os
import stat
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from tdmpc2_core.errors import UserError

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def closest(word: str, accepted: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" when one of `accepted` resembles `word`, else an empty text."""
    found = difflib.get_close_matches(str(word), list(accepted), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def describe(value: Any) -> str:
    """A value as an error message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"text {value!r}"
    if isinstance(value, Mapping):
        return "a section with keys " + ", ".join(map(str, value)) if value else "an empty section"
    return f"{value!r}" if len(repr(value)) < 60 else f"a {type(value).__name__}"


def expected(hint: Any, accepted: Iterable[str] | None = None) -> str:
    """A type, or the values that are `accepted` of it, as an error message or a help table shows it."""
    if accepted is not None:
        return "one of " + ", ".join(accepted)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(expected(a) for a in args)
    if origin in (tuple, list):
        repeated = origin is list or (len(args) == 2 and args[1] is Ellipsis)
        return f"a list, each {expected(args[0])}" if repeated else f"a list of {len(args)} values"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(str(c.value) for c in hint)
    return "a path" if hint is Path else "a section"


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
    accepted: Iterable[str] | None = None,
    rest: bool = False,
    **field_options: Any,
) -> Any:
    """A dataclass field that carries its unit, its reason and its range.

    low/high are inclusive, above/below exclusive; they hold for each number inside a tuple or mapping too.
    `accepted` are the values of a text, such as a registry's names; it is read when a value is checked.
    `rest=True` makes a ``dict[str, X]`` field collect the keys that no other field claims.
    `field_options` go to `dataclasses.field` (compare, hash, repr, ...).
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"unit": unit, "why": why, "rest": rest, "accepted": accepted, **bounds}
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
    value = _without_retired(cls, value, place)
    rest = next((f.name for f in fields.values() if f.metadata.get("rest")), None)
    named = {name: v for name, v in value.items() if name in fields and name != rest}
    unknown = {name: v for name, v in value.items() if name not in named}
    if unknown and rest is None:
        name = next(iter(unknown))
        raise place.error(f"unknown key {name!r}{closest(name, fields)}; accepted: {_names(cls)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in named and name != rest:
            raise place.error(f"key {name!r} is missing; it needs {_expected(f, hints[name])}")
    made = {n: convert(hints[n], v, place.child(n, fields[n].metadata)) for n, v in named.items()}
    if rest is not None:
        made[rest] = _dict(typing.get_args(hints[rest])[1], unknown, place)
    try:
        return cls(**made)
    except ValueError as problem:
        raise place.error(str(problem)) from problem


def _without_retired(cls: Any, value: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    """The section less the keys of its class's `RETIRED`, which files of earlier versions hold.

    `RETIRED`: key -> the values that it had; the first means what is done anyway, another gives a warning.
    """
    retired: Mapping[str, tuple[Any, ...]] = getattr(cls, "RETIRED", {})
    for name in retired.keys() & value.keys():
        done = retired[name][0]
        done, at = retired[name][0], place.child(name)
        if _choice(retired[name], value[name], at) != done:
            said = at.error(f"{value[name]!r} is offered no more; {done!r} is done")
            logging.getLogger(__name__).warning("%s", said)
    return {name: v for name, v in value.items() if name not in retired}


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


def _expected(f: dataclasses.Field[Any], hint: Any) -> str:
    return expected(hint, f.metadata.get("accepted"))


def _scalar(hint: Any, value: Any, place: Place) -> Any:
    if hint is str and place.rules.get("accepted") is not None:
        return _choice(place.rules["accepted"], value, place)
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
    try:
        finite = math.isfinite(number)
    except OverflowError:  # a whole number beyond any float
        finite = False
    if not finite:
        raise place.error(f"expected {wanted}, got {str(value)[:40]}, which is not finite")
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


__all__ = [
    "apply_overrides",
    "check_fields",
    "field_help",
    "from_mapping",
    "load_yaml",
    "parse_yaml",
    "read_bytes",
    "read_yaml",
    "setting",
    "to_mapping",
]


_MOST_BYTES, _MOST_NODES, _DEEPEST = 1 << 18, 50_000, 40  # of a YAML text; a robot's has 1e4, 600 and 6


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would resolve silently to the last one, and
    what would take long to walk: deep nesting, and aliases of aliases (each counts as all it holds)."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # by id of a node that is complete

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {_DEEPEST} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        known = node is None or id(node) in self._sizes
        if isinstance(event, yaml.AliasEvent) and not known:
            raise yaml.YAMLError("an alias holds itself")
        if node is not None and not known:
            self._sizes[id(node)] = self._size(node, event.start_mark)
        return node

    def _size(self, node: yaml.Node, mark: Any) -> int:
        """Values below a node, itself included; those of an alias count each time."""
        size = 1
        if isinstance(node, yaml.CollectionNode):
            flat = (n for item in node.value for n in (item if isinstance(item, tuple) else (item,)))
            size += sum(self._sizes[id(child)] for child in flat)
        if size > _MOST_NODES:
            what = f"its aliases come to more than {_MOST_NODES} values"
            raise yaml.composer.ComposerError(problem=what, problem_mark=mark)
        return size

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    problem="a key must be text", problem_mark=key_node.start_mark
                )
            if key_node.value in seen and key_node.value != "<<":
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key_node.value!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """The content of a YAML text, in bounded time. Raises yaml.YAMLError, whatever is wrong with it."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise
    except Exception as problem:  # such as a date or number that its constructor cannot make
        raise yaml.YAMLError(f"{type(problem).__name__}: {problem}") from None


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Content of a plain file of at most `most` bytes; neither a pipe nor a device is waited for.

    Raises:
        UserError: there is no such file, it is of another kind or too large, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise UserError(f"{path}: is no plain file; give one")
            if state.st_size > most:
                raise UserError(f"{path}: has {state.st_size} bytes, at most {most} are read")
            return file.read(most)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror})") from None
    except ValueError as problem:  # a NUL in the name, or what UTF-8 cannot write
        raise UserError(f"{str(path)!r}: is no name of a file ({problem})") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError when it is missing, not YAML or not a mapping."""
    try:
        text = read_bytes(path, _MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise UserError(f"{path}: cannot be read as text: {problem}") from None
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: {line}not valid YAML: {getattr(problem, 'problem', problem)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values at the top, got {describe(content)}")
    return content


def load_yaml(cls: type[T], path: str | Path) -> T:
    """Build the dataclass `cls` from a YAML file. Raises UserError naming the file and the key."""
    return from_mapping(cls, read_yaml(path), str(path))


def to_mapping(instance: Any) -> dict[str, Any]:
    """The settings as plain YAML/JSON values; `from_mapping` gives an equal instance back.

    Fields that are None by default and still None are left out; `rest` fields are written flat.
    """
    result: dict[str, Any] = {}
    for f in dataclasses.fields(instance):
        value = getattr(instance, f.name)
        if not f.init or (value is None and f.default is None):
            continue
        if f.metadata.get("rest"):
            result.update(_plain(value))
        else:
            result[f.name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def apply_overrides(instance: T, overrides: Sequence[str], where: str = "command line") -> T:
    """A copy of a dataclass with dotted overrides, such as ``["learner.batch_size=256", "horizon=3"]``.

    Values are read as YAML, except for text fields, taken as they are; a list of texts may also be one text
    with commas between. Inside a list an item is named by its `name` or its position:
    ``reward.terms.track_yaw_rate.weight=0.7``. Raises UserError.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise UserError(f"{where}: {override!r}: expected key=value, such as learner.batch_size=256")
        instance = _replace(type(instance), instance, path.strip().split("."), text.strip(), Place(where))
    return instance


def _replace(hint: Any, value: Any, keys: list[str], text: str, place: Place) -> Any:
    """`value` with the part that `keys` leads to replaced by `text`, converted to the type `hint`."""
    if not keys:
        return _parse(hint, text, place)
    if dataclasses.is_dataclass(value):
        return _replace_field(value, keys, text, place)
    if isinstance(value, (tuple, list)):
        names = [getattr(item, "name", str(i)) for i, item in enumerate(value)]
        if keys[0] in names:
            index = names.index(keys[0])
        elif keys[0].isdigit() and int(keys[0]) < len(value):
            index = int(keys[0])
        else:
            near = closest(keys[0], names)
            raise place.error(f"has no item {keys[0]!r}{near}; accepted: {', '.join(names)}")
        args = [a for a in typing.get_args(hint) if a is not Ellipsis] or [type(value[index])]
        item_hint = args[index] if index < len(args) else args[0]
        new = _replace(item_hint, value[index], keys[1:], text, place.child(keys[0]))
        return type(value)([*value[:index], new, *value[index + 1 :]])
    if isinstance(value, Mapping):
        item_hint = (typing.get_args(hint) or (str, Any))[1]
        new = _replace(item_hint, value.get(keys[0]), keys[1:], text, place.child(keys[0]))
        return {**value, keys[0]: new}
    raise place.error(f"is {describe(value)}, which has no part {keys[0]!r}")


def _replace_field(instance: Any, keys: list[str], text: str, place: Place) -> Any:
    fields = {f.name: f for f in dataclasses.fields(instance) if f.init}
    rest = next((f for f in fields.values() if f.metadata.get("rest")), None)
    name, deeper = keys[0], keys[1:]
    if name not in fields and rest is not None:
        name, deeper = rest.name, keys
    if name not in fields:
        accepted = ", ".join(fields)
        raise place.error(f"unknown key {name!r}{closest(name, fields)}; accepted: {accepted}")
    below = place if deeper is keys else place.child(name, fields[name].metadata)
    cls: Any = type(instance)
    new = _replace(type_hints(cls)[name], getattr(instance, name), deeper, text, below)
    try:
        result = dataclasses.replace(instance, **{name: new})
    except ValueError as problem:
        raise place.error(str(problem)) from problem
    for f in dataclasses.fields(instance):
        if not f.init:  # what is not a setting, such as the folder a file came from, stays
            object.__setattr__(result, f.name, getattr(instance, f.name))
    return result


def _parse(hint: Any, text: str, place: Place) -> Any:
    options = typing.get_args(hint) or (hint,)
    if typing.get_origin(hint) is Literal and text in options:
        return text  # to YAML, words such as 19 and off are no text
    if typing.get_origin(hint) is tuple:
        if options[0] is str and not text.startswith("["):  # commas alone are easier in a shell
            return convert(hint, [part.strip() for part in text.split(",") if part.strip()], place)
    elif hint is str or (str in options and text not in ("", "null", "~")):
        return convert(hint, text, place)
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        raise place.error(f"expected {expected(hint)}, got text {text!r}") from None
    return convert(hint, value, place)


def field_help(settings: Any, prefix: str = "") -> str:
    """A table for ``--help``: key, accepted values, default, reason, unit and range of each setting.

    `settings`: a dataclass, or an instance of one, whose values are then shown as the defaults.
    """
    rows = list(_rows(settings, prefix))
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    lines = ("  ".join(["", *map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows)
    return "\n".join(lines)


def field_names(settings: Any) -> list[str]:
    """The keys that `field_help` lists, such as ``learner.batch_size``."""
    return [row[0] for row in _rows(settings, "")]


def _rows(settings: Any, prefix: str) -> typing.Iterator[tuple[str, str, str, str]]:
    cls = settings if isinstance(settings, type) else type(settings)
    hints = type_hints(cls)
    for f in (f for f in dataclasses.fields(cls) if f.init):
        value = _default(f) if settings is cls else getattr(settings, f.name)
        options = [o for o in (typing.get_args(hints[f.name]) or (hints[f.name],)) if o is not type(None)]
        if len(options) == 1 and dataclasses.is_dataclass(options[0]):
            yield from _rows(value if dataclasses.is_dataclass(value) else options[0], f"{prefix}{f.name}.")
            continue
        signs = {"low": ">=", "above": ">", "high": "<=", "below": "<"}
        bounds = [f"{sign} {f.metadata[r]:g}" for r, sign in signs.items() if f.metadata.get(r) is not None]
        notes = [part for part in (f.metadata.get("unit"), " and ".join(bounds)) if part]
        why = str(f.metadata.get("why", "")) + (f" [{', '.join(notes)}]" if notes else "")
        yield prefix + f.name, _expected(f, hints[f.name]), _shown(value), why


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def _shown(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    plain = _plain(value)
    return {"True": "true", "False": "false", "None": "null"}.get(str(plain), str(plain))
