"""Files on disk: written whole or not at all, asked for beforehand; and the bundles of the suite."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

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


@contextmanager
def making(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder beside `folder` to fill; left without an error it takes the name, else it is removed.

    Raises UserError where `folder` exists or its parent cannot be written.
    """
    target = Path(folder)
    if target.exists():
        raise UserError(f"{target}: exists already; name a new folder")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir(parents=True)
    except OSError as problem:
        raise UserError(f"{target}: cannot be made ({problem.strerror}); name a writable folder") from None
    try:
        yield partial
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


_LOCK = ".in_use"


@contextmanager
def claimed(folder: str | os.PathLike[str], what: str) -> Iterator[Path]:
    """The folder, made where it is missing, for this process alone until the context is left.

    The file ``.in_use`` in it names the process. It is locked, not just there: one that a killed process left
    behind binds nobody. A folder that was made and is empty in the end is removed.

    Raises:
        UserError: another process works in the folder, or it cannot be written; the sentence begins with
            `what`.
    """
    path = Path(folder) / _LOCK
    made = [each for each in (path.parent, *path.parent.parents) if not each.exists()]
    check_writable(path, what)
    file = _locked(path, what)
    try:
        yield path.parent
    finally:
        path.unlink(missing_ok=True)
        file.close()
        with suppress(OSError):
            for each in made:
                each.rmdir()  # the first that holds something ends this


def _locked(path: Path, what: str) -> IO[str]:
    """The lock file, open and locked. Raises UserError."""
    while True:
        file = path.open("a+")
        if sys.platform == "win32":  # it has no such locks
            return file
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise UserError(
                f"{what}: {path.parent} is in use by process {holder}; wait for its end or use another folder"
            ) from None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            return file
        file.close()  # its holder removed it in between


def free_folder(folder: str | os.PathLike[str], holds: str) -> Path:
    """`folder`, or the first of folder-2, folder-3, ... without a file `holds` that is of an earlier run."""
    first, number = Path(folder), 1
    while True:
        path = first.with_name(f"{first.name}-{number}") if number > 1 else first
        if not (path / holds).exists() and not (path / _LOCK).exists():
            return path
        number += 1


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
