"""A robot inside a bundle: copying its files in, reading them back, and telling two robots apart."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

YAML_NAME = "embodiment.yaml"
_ASSET_FOLDERS = ("meshdir", "texturedir", "assetdir")


def robot_files(embodiment: Embodiment) -> dict[str, bytes]:
    """Every file of a robot by path relative to its folder: YAML, MJCF and what that refers to.

    Empty for a robot that was built without a folder.

    Raises:
        UserError: the MJCF cannot be read or refers to a file outside the robot's folder.
    """
    folder = embodiment.directory
    if folder is None:
        return {}
    files = {YAML_NAME: _yaml_bytes(embodiment, folder)}
    pending = [folder / embodiment.model]
    while pending:
        path = pending.pop()
        name = Path(os.path.relpath(path, folder)).as_posix()
        if name.startswith(".."):
            raise UserError(f"{embodiment.model_path}: refers to {path}; it must lie in {folder}")
        if name in files:
            continue
        try:
            files[name] = path.read_bytes()
            if path.suffix == ".xml":
                pending.extend(_referenced(ElementTree.fromstring(files[name]), folder))
        except (OSError, ElementTree.ParseError) as error:
            raise UserError(
                f"{path}: cannot be packed into the bundle ({error}); it must be a readable MJCF"
            ) from None
    return files


def _yaml_bytes(embodiment: Embodiment, folder: Path) -> bytes:
    """The YAML file as its author wrote it when it still describes this robot, else one written anew."""
    path = folder / YAML_NAME
    if path.is_file() and Embodiment.load(path) == embodiment:
        return path.read_bytes()
    return yaml.safe_dump(embodiment.to_dict(), sort_keys=False).encode()


def _referenced(root: ElementTree.Element, folder: Path) -> Iterator[Path]:
    """Files an MJCF names: included models, meshes, textures, height fields."""
    compilers = list(root.iter("compiler"))
    places = [
        folder,
        *(folder / c.attrib[key] for c in compilers for key in _ASSET_FOLDERS if key in c.attrib),
    ]
    for element in root.iter():
        name = element.attrib.get("file")
        if name:
            yield next((place / name for place in places if (place / name).is_file()), folder / name)


def check_same_robot(path: str | os.PathLike[str], stored: Embodiment, wanted: Embodiment) -> None:
    """Refuse a checkpoint of another robot.

    Raises:
        UserError: the fingerprints differ; the sentence names both robots and the first field that differs.
    """
    if stored.fingerprint != wanted.fingerprint:
        raise UserError(
            f"{path}: this checkpoint is for robot {stored.name!r}, which is not the {wanted.name!r} given: "
            f"{first_difference(stored, wanted)}; use one that was trained for it"
        )


def first_difference(stored: Embodiment, wanted: Embodiment) -> str:
    """First field a policy depends on in which two robots differ, with both values."""
    found = _difference(stored.policy_view(), wanted.policy_view(), "")
    if found is None:
        return "their fingerprints differ"
    place, left, right = found
    return f"{place} is {left!r} in the checkpoint and {right!r} here"


def _difference(left: Any, right: Any, place: str) -> tuple[str, Any, Any] | None:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in [*left, *(k for k in right if k not in left)]:
            found = _difference(left.get(key), right.get(key), f"{place}.{key}" if place else str(key))
            if found:
                return found
        return None
    if _is_list(left) and _is_list(right):
        for i, (a, b) in enumerate(zip(left, right, strict=False)):
            found = _difference(a, b, f"{place}[{i}]")
            if found:
                return found
        return None if len(left) == len(right) else (f"the length of {place}", len(left), len(right))
    return None if left == right else (place, left, right)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
