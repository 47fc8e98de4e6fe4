"""Settings as typed dataclasses, read from YAML and the command line.

A settings class is a (preferably frozen) dataclass whose fields are made with `setting(...)`; rules between
fields go in `__post_init__` as ValueError, after `check_fields(self)` where code makes instances too.
Training, planner and embodiment files all come through here.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tdmpc2_core.config_values import (
    Place,
    check_fields,
    convert,
    from_mapping,
    setting,
    type_hints,
)
from tdmpc2_core.config_words import closest, describe, expected
from tdmpc2_core.errors import UserError

__all__ = [
    "apply_overrides",
    "check_fields",
    "field_help",
    "from_mapping",
    "load_yaml",
    "read_yaml",
    "setting",
    "to_mapping",
]

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would resolve silently to the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen and key_node.value != "<<":
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key_node.value!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError when it is missing, not YAML or not a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read as text: {problem}") from None
    try:
        content = yaml.load(text, _Loader)
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

    Values are read as YAML, except for text fields, taken as they are. Inside a list an item
    is named by its `name` or its position: ``reward.terms.track_yaw_rate.weight=0.7``. Raises UserError.
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
    if hint is str or (str in options and text not in ("", "null", "~")):
        return convert(hint, text, place)
    try:
        value = yaml.safe_load(text)
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
        yield prefix + f.name, expected(hints[f.name]), _shown(value), why


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def _shown(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    plain = _plain(value)
    return {"True": "true", "False": "false", "None": "null"}.get(str(plain), str(plain))
