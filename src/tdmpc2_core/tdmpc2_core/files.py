"""Files on disk: written whole or not at all, asked for beforehand; and the bundles of the suite."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def replacing(path: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """A path beside `path`, of the same suffix, to write to; left without an error it takes `path`'s place.

    durable: wait until the disk has it, so that a power cut leaves the old file or the new one.
    Raises OSError, which names `path`.
    """
    target = Path(path)
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        yield partial
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(target)
    except OSError as problem:
        problem.filename = str(target)  # not that of the part, nor none, as of a write
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview, durable: bool = False) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    with replacing(path, durable) as partial:
        partial.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str, durable: bool = False) -> None:
    """Write a text file, whole or not at all. Raises OSError."""
    write_bytes(path, text.encode(), durable)


def write_torch(path: str | os.PathLike[str], content: Any, durable: bool = False) -> None:
    """Write what `torch.save` makes of `content`, whole or not at all. Raises OSError."""
    import torch  # here: nodes that write no weights do without

    buffer = io.BytesIO()  # torch's own writer hides the reason when a disk refuses
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer(), durable)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON, whole or not at all; numbers that are not finite become null. Raises OSError."""
    write_text(path, json.dumps(_plain(content), indent=2) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shipped_bundle(name: str) -> Path:
    """Folder of the trained bundle for a robot or a benchmark task.

    Raises:
        UserError: none comes with the suite.
    """
    folder = Path(str(files("tdmpc2_core"))) / "bundles" / name
    if not (folder / "bundle.json").is_file():
        raise UserError(f"{name}: no trained bundle comes with the suite; train one with `tdmpc2 train`")
    return folder
