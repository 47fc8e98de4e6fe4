"""Files on disk: the trained bundles that come with the suite, and whether a result can be written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from tdmpc2_core.errors import UserError


def check_writable(path: str | os.PathLike[str], what: str) -> None:
    """Make the folder of a file to come; an existing file is left as it is, none is left behind.

    Raises:
        UserError: `path` cannot be written; the sentence begins with `what`.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = not target.exists()
        with target.open("a"):
            pass
        if new:
            target.unlink()
    except OSError as problem:
        reason = problem.strerror or problem
        raise UserError(
            f"{what}: {path} cannot be written ({reason}); name a file in a writable folder"
        ) from None


def shipped_bundle(name: str) -> Path:
    """Folder of the trained bundle for a robot or a benchmark task.

    Raises:
        UserError: none comes with the suite.
    """
    folder = Path(str(files("tdmpc2_core"))) / "bundles" / name
    if not (folder / "bundle.json").is_file():
        raise UserError(f"{name}: no trained bundle comes with the suite; train one with `tdmpc2 train`")
    return folder


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content` as JSON, complete or not at all; numbers that are not finite become null.

    Raises OSError.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.new")
    temporary.write_text(json.dumps(_plain(content), indent=2) + "\n", encoding="utf-8")
    temporary.replace(target)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
