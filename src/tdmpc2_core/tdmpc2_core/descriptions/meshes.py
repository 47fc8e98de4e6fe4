"""Mesh files that a URDF names: where they are, and in a form that MuJoCo reads."""

from __future__ import annotations

import os
import re
import shutil
import struct
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from tdmpc2_core.errors import UserError, missing_extra

_MOST_FACES = 200_000  # that MuJoCo takes from an STL
_CONVERTED = (".stl", ".dae", ".ply", ".off")


def find_mesh(name: str, source: Path, mesh_folder: str = "") -> tuple[Path | None, list[Path]]:
    """The file that a URDF at `source` calls `name`, and every place that was looked at for it.

    A path, file://, or package://NAME/...: NAME is looked for above the URDF, as a folder or as the package
    whose package.xml has that name, then in AMENT_PREFIX_PATH and ROS_PACKAGE_PATH. package:/// is a
    path from a folder above the URDF. `mesh_folder` is the meshdir of a <mujoco> block.
    """
    scheme, slashes, rest = name.partition("://")
    if not slashes:
        folder = source.parent / mesh_folder
        places = [source.parent / name, folder / name, folder / Path(name).name]
    elif scheme == "file":
        places = [source.parent / path for path in (rest, unquote(rest))]
    elif scheme in ("package", "model"):
        places = _in_packages(*rest.partition("/")[::2], source)
        if mesh_folder:
            places.append(source.parent / mesh_folder / Path(rest).name)
    else:
        places = []
    places = list(dict.fromkeys(places))
    return next((place for place in places if _is_file(place)), None), places


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def _in_packages(package: str, rest: str, source: Path) -> list[Path]:
    above = list(source.resolve().parents)
    if not package:
        return [folder / rest for folder in above]
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*", package):
        return []
    places = [folder / rest for folder in above if _package_name(folder) == package]
    places += [folder / package / rest for folder in above]
    prefixes = [Path(path) for path in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if path]
    places += [prefix / "share" / package / rest for prefix in prefixes]
    for path in filter(None, os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep)):
        places.append((Path(path) if Path(path).name == package else Path(path) / package) / rest)
    return places


def _package_name(folder: Path) -> str:
    try:
        return (ElementTree.parse(folder / "package.xml").findtext("name") or "").strip()
    except (OSError, ElementTree.ParseError):
        return ""


def take_mesh(file: Path, folder: Path, number: int) -> str:
    """Put a mesh into `folder`, as STL or OBJ; returns its name there, which holds letters and digits only.

    Raises:
        UserError: the form is not known, the file is damaged, or a library that reads it is missing.
    """
    suffix = file.suffix.lower()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", file.stem)[:40]
    name = f"{stem}_{number}{suffix}"
    if suffix == ".obj" or (suffix == ".stl" and _plain_stl(file)):
        shutil.copyfile(file, folder / name)
        return name
    if suffix not in _CONVERTED:
        accepted = ", ".join(form.removeprefix(".").upper() for form in (".obj", *_CONVERTED))
        raise UserError(f"{file}: meshes of this form are not read; accepted: {accepted}")
    mesh = _load(file)
    name = f"{stem}_{number}.obj"
    points = [f"v {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in mesh.vertices.tolist()]
    faces = [f"f {a} {b} {c}\n" for a, b, c in (mesh.faces + 1).tolist()]
    (folder / name).write_text("".join([*points, *faces]), encoding="ascii")
    return name


def _plain_stl(file: Path) -> bool:
    """Whether MuJoCo reads it: binary, and not too long."""
    with file.open("rb") as stream:
        head = stream.read(84)
    if len(head) < 84:
        return False
    (count,) = struct.unpack("<I", head[80:])
    return 0 < count <= _MOST_FACES and file.stat().st_size == 84 + 50 * count


def _load(file: Path) -> Any:
    """A trimesh.Trimesh of all of the file's parts, in m and in the axes of the file."""
    kind = file.suffix.lower().removeprefix(".")
    try:
        trimesh = import_module("trimesh")
        if kind == "dae":
            import_module("collada")  # trimesh reads this form with it
    except ImportError as error:
        raise missing_extra(str(file), "collada" if error.name == "collada" else "trimesh") from None
    try:
        with file.open("rb") as stream:
            mesh = trimesh.load(stream, file_type=kind, force="mesh")
        empty = not len(mesh.faces)
    except Exception as problem:  # what the parsers of these forms raise is not known beforehand
        raise UserError(f"{file}: cannot be read as a mesh: {' '.join(str(problem).split())}") from None
    if empty:
        raise UserError(f"{file}: has no triangles")
    if kind == "dae":
        mesh.apply_scale(_collada_unit(file))
    return mesh


def _collada_unit(file: Path) -> float:
    """Metres in one unit of a Collada file; its axes are not turned, as RViz does not turn them."""
    unit = next(ElementTree.parse(file).getroot().iterfind("{*}asset/{*}unit"), None)
    return 1.0 if unit is None else float(unit.get("meter", "1"))
