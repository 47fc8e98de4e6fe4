"""How settings, their types and near misses are put into words, for error messages and help."""

from __future__ import annotations

import difflib
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

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


def expected(hint: Any) -> str:
    """A type as an error message or a help table shows it."""
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
