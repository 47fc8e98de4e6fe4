"""A robot folder with the identified values: the same robot to a policy, another one to the simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import making
from tdmpc2_core.identification.fit import Found, Identification
from tdmpc2_core.identification.parameters import plant_of
from tdmpc2_core.robots.embodiment import FILE_NAME, Embodiment


def identified_embodiment(robot: Embodiment, result: Identification) -> Embodiment:
    """The robot with its plant at the estimates and the ranges of what was identified as wide as intervals.

    Joints, action and observation stay, so that bundles for `robot` run on it.
    """
    rows = tuple(one.parameter for one in result.found)
    plant, _ = plant_of(rows, result.values(), robot.num_joints)
    known = {one.parameter.name: one for one in result.found if one.identifiable}
    if "friction" not in known:
        plant = replace(plant, friction=robot.plant.friction)
    content = robot.to_dict()
    content["plant"] = {key: value for key, value in vars(plant).items() if value is not None}
    ranges = content["randomisation"]
    ranges |= _narrowed(known)
    curriculum = ranges.get("curriculum")
    for name in _narrowed(known):
        if curriculum:
            curriculum.pop(name, None)
    return Embodiment.from_dict(content, directory=robot.directory)


def _narrowed(known: dict[str, Found]) -> dict[str, Any]:
    """Ranges of `randomisation` for what was identified: around 0 or 1 where the plant holds the estimate."""
    result: dict[str, Any] = {}
    for name in ("friction", "delay"):
        if name in known:
            result[name] = [max(known[name].low, 0.0), known[name].high]
    if "mass" in known:
        one = known["mass"]
        result["base_mass"] = [one.low - one.estimate, one.high - one.estimate]
        result["payload"] = [0.0, 0.0]
    gains = [one for name, one in known.items() if name.split()[0] in ("kp", "kd")]
    if gains:
        result["gain"] = [
            min(one.low / one.estimate for one in gains),
            max(one.high / one.estimate for one in gains),
        ]
    return result


def check_new(folder: Path) -> None:
    """Raise UserError where a folder exists already: nothing is overwritten."""
    if folder.exists():
        raise UserError(f"--out: {folder} exists; name a folder that does not")


def write_robot(folder: Path, robot: Embodiment, files: dict[str, bytes]) -> None:
    """Write embodiment.yaml and the other files of the model, the whole folder or nothing.

    Args:
        folder: must not exist.
        robot: what embodiment.yaml says.
        files: of the robot by path relative to its folder.

    Raises:
        UserError: the folder exists or cannot be made. OSError where the disk refuses.
    """
    text = "# Made by tdmpc2 identify: section plant, and ranges of randomisation\n"
    text += yaml.safe_dump(_plain(robot.to_dict()), sort_keys=False)
    with making(folder) as partial:
        for name, data in {**files, FILE_NAME: text.encode()}.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, float) else value
