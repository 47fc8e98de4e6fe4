"""Checkpoint bundle: one directory that holds all a robot needs to act. Loading never unpickles.

    weights.safetensors   model weights, observation statistics included
    bundle.json           {"format", "version", "content_sha256", "content": {...}}
    embodiment/           the robot's YAML, MJCF and assets, when the bundle is for a robot
    trust.safetensors     where trust ends (`TrustCalibration`), when the bundle was calibrated
    embodiments/NAME/     the same for each robot of a bundle that drives several, a task of the model each

`content` holds the model and planner configuration, measured returns, discount, robot, tasks, provenance and
the sha256 of every other file; `content_sha256` covers `content`. So every damaged byte is noticed.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from tdmpc2_core.checkpoint import manifest, trust_calibration
from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration
from tdmpc2_core.config import from_mapping, to_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.model.architecture import WorldModelConfig
from tdmpc2_core.model.world_model import WorldModel, build_model
from tdmpc2_core.planning.planners import PlannerConfig
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


def body_of(
    path: str | os.PathLike[str], bodies: Sequence[Embodiment], wanted: Embodiment | None
) -> Embodiment:
    """The one among several robots of a checkpoint that is the robot given.

    Raises:
        UserError: none is given, the checkpoint does not know it, or knows another robot of its name.
    """
    known = {robot.name: robot for robot in bodies}
    if wanted is None:
        raise UserError(
            f"{path}: this checkpoint drives {', '.join(known)}; say which robot it shall drive, or make "
            "a bundle of it alone: tdmpc2 export --format bundle --robot NAME"
        )
    for robot in bodies:
        if robot.fingerprint == wanted.fingerprint:
            return robot
    if wanted.name in known:
        check_same_robot(path, known[wanted.name], wanted)
    raise UserError(f"{path}: this checkpoint does not know robot {wanted.name!r}; known: {', '.join(known)}")


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


FORMAT_VERSION = manifest.FORMAT_VERSION
WEIGHTS = "weights.safetensors"
ROBOT_FOLDER, ROBOTS_FOLDER = "embodiment", "embodiments"
_UNREADABLE = (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)
_PACKAGES = ("tdmpc2-core", "torch", "numpy", "mujoco")


@dataclass(frozen=True)
class Bundle:
    """Content of a checkpoint bundle.

    Attributes:
        weights: the model's state dict.
        model_config: architecture the weights belong to.
        planner: settings to plan with.
        discount: per-decision discount, in (0, 1].
        control_period: s between decisions.
        embodiment: the robot, or None.
        bodies: the robots of a model that drives several; each is the task of its name.
        tasks: task names of a multi-task model, in the order of the task index.
        task_discounts: discount of every task, in that order; empty: `discount` holds for all.
        measured: rows of planner settings with the returns and times measured for them.
        provenance: how the weights came about (command, versions, steps, updates, wall_seconds, returns).
        trust: where trust ends; None where it was not calibrated, or for other weights.
    """

    weights: Mapping[str, Tensor]
    model_config: WorldModelConfig
    planner: PlannerConfig
    discount: float
    control_period: float
    embodiment: Embodiment | None = None
    tasks: tuple[str, ...] = ()
    task_discounts: tuple[float, ...] = ()
    measured: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    trust: TrustCalibration | None = None
    bodies: tuple[Embodiment, ...] = ()

    @property
    def robots(self) -> dict[str, Embodiment]:
        """Every robot by the folder of its files in the bundle."""
        one = {} if self.embodiment is None else {ROBOT_FOLDER: self.embodiment}
        return one | {f"{ROBOTS_FOLDER}/{robot.name}": robot for robot in self.bodies}

    def build_model(self) -> WorldModel:
        """World model with these weights, in evaluation mode.

        Raises:
            UserError: weights do not fit the configuration; the sentence names the first such tensor.
        """
        return build_model(self.model_config, self.weights, "bundle")


def save_bundle(path: str | os.PathLike[str], bundle: Bundle) -> None:
    """Write `bundle` to the directory `path`: complete or not at all. An older bundle there is replaced.

    Raises:
        UserError: `path` holds something that is no bundle, a weight is not finite, or the disk refuses.
    """
    target = Path(path)
    if target.exists() and not manifest.replaceable(target):
        raise UserError(f"{target}: is no bundle, so it is not replaced; give a new path or that of a bundle")
    weights = {name: value.detach().cpu().contiguous() for name, value in bundle.weights.items()}
    _check_finite(target, weights)
    files = {WEIGHTS: safetensors.torch.save(weights)}
    if bundle.trust is not None and bundle.trust.weights.tobytes().hex() == manifest.digest(files[WEIGHTS]):
        files[trust_calibration.FILE] = bundle.trust.to_bytes()
    for folder, robot in bundle.robots.items():
        files |= {f"{folder}/{name}": data for name, data in robot_files(robot).items()}
    content = _content(bundle, files)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give a writable place") from None
    try:
        for name, data in files.items():
            manifest.write_file(temporary / name, data)
        manifest.write(temporary, content)
        temporary.chmod(0o755)
        manifest.replace_directory(temporary, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); an older bundle is kept") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and check a bundle; tensors are on the host.

    Raises:
        UserError: one sentence when something is missing, damaged, from a newer version, or does not fit.
    """
    folder = manifest.find(Path(path))
    content = manifest.read(folder)
    files = manifest.read_files(folder, content)
    where = str(folder / manifest.NAME)
    try:
        bundle = Bundle(
            weights=read_weights(folder / WEIGHTS, files[WEIGHTS]),
            model_config=from_mapping(WorldModelConfig, content["model"], where, "model"),
            planner=from_mapping(PlannerConfig, content["planner"], where, "planner"),
            discount=_positive(content, "discount", most=1.0),
            control_period=_positive(content, "control_period"),
            embodiment=_embodiment(folder, content, ROBOT_FOLDER, content["embodiment"]),
            tasks=tuple(content["tasks"]),
            task_discounts=_discounts(content),
            measured=tuple(content["measured"]),
            provenance=content["provenance"],
            trust=_trust(folder, files),
            bodies=_bodies(folder, content),
        )
        _check_robots(bundle, files, where)
        bundle.build_model()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"is not usable: {error}"
        raise UserError(f"{where}: {what}; save the bundle again") from None
    except UserError as error:
        raise UserError(f"{folder}: {error}" if str(error).startswith("bundle:") else str(error)) from None
    return bundle


def weights_digest(weights: Mapping[str, Tensor]) -> bytes:
    """sha256 of the weights file that a bundle of these would have."""
    data = safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    )
    return bytes.fromhex(manifest.digest(data))


def _trust(folder: Path, files: Mapping[str, bytes]) -> TrustCalibration | None:
    """None where there is none, as in bundles of older programs, or it is that of other weights."""
    data = files.get(trust_calibration.FILE)
    if data is None:
        return None
    found = TrustCalibration.from_bytes(data, str(folder / trust_calibration.FILE))
    return found if found.weights.tobytes().hex() == manifest.digest(files[WEIGHTS]) else None


def read_weights(path: Path, data: bytes) -> dict[str, Tensor]:
    """Tensors of a safetensors file's content. Raises UserError when damaged or not finite."""
    try:
        weights = safetensors.torch.load(data)
    except _UNREADABLE as error:
        raise UserError(f"{path}: is no whole safetensors file ({error}); copy the bundle again") from None
    _check_finite(path, weights)
    return weights


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: weight {name!r} is not finite; use an earlier checkpoint")


def _content(bundle: Bundle, files: Mapping[str, bytes]) -> dict[str, Any]:
    several = {"bodies": [_about(robot) for robot in bundle.bodies]} if bundle.bodies else {}
    return {
        "model": to_mapping(bundle.model_config),
        "parameters": sum(value.numel() for value in bundle.weights.values()),
        "planner": to_mapping(bundle.planner),
        "measured": _plain(list(bundle.measured)),
        "discount": bundle.discount,
        "control_period": bundle.control_period,
        "embodiment": bundle.embodiment and _about(bundle.embodiment),
        **several,
        "tasks": list(bundle.tasks),
        "task_discounts": list(bundle.task_discounts),
        "normalisation": {"observations": bundle.model_config.normalise_obs, "stored_in": WEIGHTS},
        "provenance": {**_surroundings(), **_plain(dict(bundle.provenance))},
        "files": {name: manifest.digest(data) for name, data in files.items()},
    }


def _about(robot: Embodiment) -> dict[str, Any]:
    return {"name": robot.name, "fingerprint": robot.fingerprint, "description": _plain(robot.to_dict())}


def _surroundings() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"written": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions}


def _embodiment(
    folder: Path, content: Mapping[str, Any], within: str, stored: Mapping[str, Any] | None
) -> Embodiment | None:
    """Of the robot's files `within` the bundle, or of what is `stored` of it where there are none."""
    if stored is None:
        return None
    if any(name.startswith(f"{within}/") for name in content["files"]):
        return Embodiment.load(folder / within)
    return Embodiment.from_dict(stored["description"], where=f"{folder / manifest.NAME}: {within}")


def _bodies(folder: Path, content: Mapping[str, Any]) -> tuple[Embodiment, ...]:
    """The robots of a bundle of several; bundles of one, and of older programs, have no such entry."""
    found = []
    for stored in content.get("bodies", []):
        robot = _embodiment(folder, content, f"{ROBOTS_FOLDER}/{stored['name']}", stored)
        if robot is None or (robot.name, robot.fingerprint) != (stored["name"], stored["fingerprint"]):
            raise ValueError(f"the files of body {stored['name']!r} are of another robot")
        found.append(robot)
    return tuple(found)


def _check_robots(bundle: Bundle, files: Mapping[str, bytes], where: str) -> None:
    """Raise UserError where a robot's files are not the bundle's, its period is not the robot's, or the model
    has no such task as a body is."""
    robot = bundle.embodiment
    if robot and abs(bundle.control_period - robot.control_period) > 1e-6 * robot.control_period:
        raise UserError(
            f"{where}: control_period is {bundle.control_period:g} s, the robot's is "
            f"{robot.control_period:g} s; save the bundle again"
        )
    for within, each in bundle.robots.items():
        for name in robot_files(each):
            if f"{within}/{name}" not in files:
                raise UserError(
                    f"{where}: the robot needs {name!r}, which is not listed; save the bundle again"
                )
    model, tasks = bundle.model_config, bundle.tasks
    for body in bundle.bodies:
        index = tasks.index(body.name) if body.name in tasks else len(tasks)
        sizes = [*zip(model.obs_dims, model.action_dims, strict=False)][index : index + 1]
        if sizes != [(body.observation_dim, body.action_dim)]:
            raise ValueError(f"body {body.name!r} is no task of the model, or one of other sizes")


def _positive(content: Mapping[str, Any], name: str, most: float = math.inf) -> float:
    value = content[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= most or math.isinf(value):
        raise ValueError(f"{name} is {value!r}, must be above 0 and at most {most:g}")
    return float(value)


def _discounts(content: Mapping[str, Any]) -> tuple[float, ...]:
    """One per task, or none; bundles of older programs have no such entry."""
    stored = content.get("task_discounts", [])
    if len(stored) not in (0, len(content["tasks"])):
        raise ValueError(f"task_discounts has {len(stored)} entries for {len(content['tasks'])} tasks")
    return tuple(_positive({"task_discounts": value}, "task_discounts", most=1.0) for value in stored)


def _plain(value: Any) -> Any:
    """JSON values only: arrays become lists, non-finite numbers null, anything unknown its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
