"""bundle.json and the files it vouches for: checked reading, durable writing, safe replacement."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tdmpc2_core.config import read_bytes
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import shipped_bundle

NAME = "bundle.json"
FORMAT = "tdmpc2-bundle"
FORMAT_VERSION = 2
"""Newest that is read; 2 is written for several bodies only, so that older programs read all others."""
_MOST_BYTES, _MOST_IN_FILE = 1 << 24, 1 << 32  # of bundle.json, of any other file


def digest(data: bytes) -> str:
    """sha256, hex."""
    return hashlib.sha256(data).hexdigest()


def is_bundle(folder: Path) -> bool:
    """Whether a directory looks like a bundle."""
    return (folder / NAME).is_file()


def replaceable(path: Path) -> bool:
    """Whether `path` may be overwritten: an older bundle or an empty directory."""
    return is_bundle(path) or (path.is_dir() and not any(path.iterdir()))


def whole(path: Path) -> Path | None:
    """`path`, or the older bundle that an interrupted replacement left beside it; None without either."""
    if is_bundle(path):
        return path
    return _previous(path) if not path.exists() and is_bundle(_previous(path)) else None


def find(path: Path) -> Path:
    """Directory to read: `path`, or the older bundle that an interrupted replacement left beside it.

    A bare name that is no directory here, such as ``quadruped``, is the shipped bundle of that robot or task.

    Raises:
        UserError: there is none.
    """
    try:
        newest = whole(path)
        there = path.exists()
    except OSError as error:
        raise UserError(f"{str(path)[:80]!r}: is no path of a bundle ({error.strerror})") from None
    if "\0" in str(path):
        raise UserError(f"{str(path)[:80]!r}: is no path of a bundle (it holds a NUL)")
    if newest is not None:
        return newest
    if not there:
        if len(path.parts) == 1:
            return shipped_bundle(path.name)
        raise UserError(f"{path}: no such bundle; give the directory that holds {NAME}")
    if not path.is_dir():
        raise UserError(f"{path}: is a file, a bundle is a directory; give the directory that holds {NAME}")
    raise UserError(f"{path}: has no {NAME}, so it is no bundle; give the directory that holds {NAME}")


def read(folder: Path) -> dict[str, Any]:
    """`content` of bundle.json.

    Raises:
        UserError: not readable, no JSON, no bundle, from a newer version, or changed after it was written.
    """
    path = folder / NAME
    try:
        document = json.loads(read_bytes(path, _MOST_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is broken JSON ({error}); copy the bundle again") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path}: is no {FORMAT} file; its key 'format' must be {FORMAT!r}")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise UserError(f"{path}: format version is {version!r}, must be from 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path}: has format version {version}, this program reads up to {FORMAT_VERSION}; "
            "update tdmpc2-core"
        )
    content = document.get("content")
    if not isinstance(content, dict) or document.get("content_sha256") != digest(_canonical(content)):
        raise UserError(
            f"{path}: was changed after it was written (its checksum differs); copy the bundle again"
        )
    return content


def content_digest(path: str | os.PathLike[str]) -> str:
    """sha256, hex, of all that the bundle at `path` holds: its settings and, by their sums, its files.

    Raises UserError as `find` and `read`.
    """
    return digest(_canonical(read(find(Path(path)))))


def read_files(folder: Path, content: Mapping[str, Any]) -> dict[str, bytes]:
    """Content of every file bundle.json lists, by relative path.

    Raises:
        UserError: a file is missing, lies outside the bundle, or its sha256 differs.
    """
    listed = content.get("files")
    if not isinstance(listed, dict) or "weights.safetensors" not in listed:
        raise UserError(
            f"{folder / NAME}: lists no weights.safetensors under 'files'; write the bundle again"
        )
    files: dict[str, bytes] = {}
    for name, expected in listed.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{folder / NAME}: lists {name!r}, outside the bundle; save the bundle again")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: leads out of the bundle; save the bundle again")
        try:
            files[name] = read_bytes(path, _MOST_IN_FILE)
        except UserError as error:
            raise UserError(f"{error}; copy the whole bundle again") from None
        if digest(files[name]) != expected:
            raise UserError(
                f"{path}: is damaged ({len(files[name])} bytes, its sha256 is not the one in {NAME}); "
                "copy the bundle again"
            )
    return files


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write bundle.json around `content`, in the first version that has all of it."""
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION if content.get("bodies") else 1,
        "content_sha256": digest(_canonical(content)),
        "content": content,
    }
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_file(folder / NAME, text.encode("utf-8"))


def write_file(path: Path, data: bytes) -> None:
    """Write `data`, and have it on the disk before returning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_directory(new: Path, target: Path) -> None:
    """Put directory `new` in the place of `target`; cut off anywhere, `find` still finds a whole bundle."""
    previous = _previous(target)
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        target.rename(previous)
    try:
        new.rename(target)
    except OSError:
        if previous.exists():
            previous.rename(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _previous(path: Path) -> Path:
    return path.parent / f".{path.name}.previous"


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
