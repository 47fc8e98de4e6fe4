"""Embodiment: everything the suite knows about one robot, read from one YAML file next to its MJCF.

Used unchanged by training, the simulation node, planner node and bag replay. Frozen; arrays are read-only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import from_mapping, read_yaml, setting, to_mapping
from tdmpc2_core.config_values import Place
from tdmpc2_core.config_words import closest
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment_rules import check_rules
from tdmpc2_core.robots.kinematics import KinematicChain
from tdmpc2_core.robots.pose_command import PoseCommandSpec
from tdmpc2_core.robots.specs import (
    ActionSpec,
    ClockSpec,
    CommandSpec,
    Joint,
    ObservationSpec,
    SafetySpec,
    joints_from_section,
)
from tdmpc2_core.robots.training_specs import (
    DemonstrationSpec,
    RandomisationSpec,
    ResetSpec,
    RewardSpec,
    TerminationSpec,
)

FILE_NAME = "embodiment.yaml"
SHIPPED = Path(__file__).parent / "models"


class TermBlock(NamedTuple):
    """Where one observation term lies: `history` samples of `size` values from `start`, newest first."""

    name: str
    start: int
    size: int
    history: int

    @property
    def stop(self) -> int:
        """Index after the block's last entry."""
        return self.start + self.size * self.history


@dataclass(frozen=True)
class Embodiment:
    """One robot. Build it with `load` or `from_dict`; the constructor checks only rules between sections."""

    name: str = setting(why="short name, used in topics and file names")
    model: str = setting(why="MJCF file, relative to the embodiment file")
    control_rate: float = setting(unit="Hz", above=0, why="agent decisions")
    physics_rate: float = setting(unit="Hz", above=0, why="simulator steps; a whole multiple of control_rate")
    joints: tuple[Joint, ...] = setting(why="order of the action vector and of every joint array")
    observation: ObservationSpec = setting(why="what the policy sees")
    format: Literal[1] = setting(1, why="version of this file's layout")
    task: str = setting("", why="what the robot is to do, in words")
    base_frame: str = setting("base_link", why="REP-105 name of the body frame")
    imu_frame: str | None = setting(None, why="frame of the IMU; needed when a term comes from it")
    action: ActionSpec = setting(ActionSpec(), why="what an action means")
    command: CommandSpec | PoseCommandSpec | None = setting(None, why="what an operator can ask for")
    clock: ClockSpec | None = setting(None, why="gait phase")
    safety: SafetySpec = setting(SafetySpec(), why="limits on what is sent")
    episode_seconds: float = setting(20.0, unit="s", above=0, why="length of a training episode")
    reset: ResetSpec = setting(ResetSpec(), why="start of an episode")
    reward: RewardSpec = setting(RewardSpec(), why="training reward")
    termination: TerminationSpec = setting(TerminationSpec(), why="end of an episode")
    randomisation: RandomisationSpec = setting(RandomisationSpec(), why="domain randomisation")
    demonstration: DemonstrationSpec | None = setting(None, why="scripted controller")
    directory: Path | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_rules(self)

    # ---- reading and writing ----

    @staticmethod
    def load(path_or_name: str | os.PathLike[str]) -> Embodiment:
        """A shipped robot by name, a directory with embodiment.yaml, or such a file. Raises UserError."""
        path, shipped = Path(path_or_name), shipped_names()
        if str(path_or_name) in shipped:
            path = SHIPPED / str(path_or_name)
        elif not path.exists():
            raise UserError(
                f"no robot {str(path_or_name)!r}{closest(str(path_or_name), shipped)}; "
                f"accepted: a shipped name ({', '.join(shipped)}), a directory with {FILE_NAME}, or that file"
            )
        if path.is_dir():
            path = path / FILE_NAME
        return Embodiment.from_dict(read_yaml(path), where=str(path), directory=path.parent)

    @staticmethod
    def from_dict(
        mapping: Mapping[str, Any], where: str = "embodiment", directory: str | os.PathLike[str] | None = None
    ) -> Embodiment:
        """From the mapping that a YAML file or `to_dict` holds; `where` names its origin in errors.

        With `directory` the model file must lie there; without it there is no `model_path`. Raises UserError.
        """
        place = Place(where)
        sections = dict(mapping)
        if "joints" in sections:
            sections["joints"] = joints_from_section(sections["joints"], place.child("joints"))
        result = from_mapping(Embodiment, sections, where)
        if directory is not None:
            if not (Path(directory) / result.model).is_file():
                raise UserError(
                    f"{where}: model: no file {result.model!r} in {directory}; give the MJCF's name"
                )
            object.__setattr__(result, "directory", Path(directory).resolve())
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML or JSON; `from_dict` gives an equal embodiment back."""
        result = to_mapping(self)
        result["joints"] = {"list": result["joints"]}
        return result

    @property
    def model_path(self) -> Path:
        """The MJCF file. Raises UserError for an embodiment made without a directory."""
        if self.directory is None:
            raise UserError(f"embodiment {self.name!r} has no model file at hand; load it from a folder")
        return self.directory / self.model

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over what a policy depends on.

        These are joints, action, control rate, command ranges and deadband, frequency and stop of the clock,
        and the observation's terms with scale and history; not noise, ages, safety or training sections.
        """
        content = self.policy_view()
        clock = self.clock  # without stop_cycles the number alone, as in the bundles that are older than it
        content["clock"] = clock and (
            [clock.frequency, clock.stop_cycles] if clock.stop_cycles else clock.frequency
        )
        content["observation"] = [list(term.values()) for term in content["observation"]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def policy_view(self) -> dict[str, Any]:
        """What `fingerprint` covers, as plain values under the keys of the file."""
        twist, pose = self.twist_command, self.pose_command
        return {
            "control_rate": self.control_rate,
            "joints": [to_mapping(joint) for joint in self.joints],
            "action": to_mapping(self.action),
            "command": {"kind": pose.kind, "tool": pose.tool}
            if pose
            else twist and {"terms": [to_mapping(t) for t in twist.terms], "deadband": twist.deadband},
            "clock": self.clock
            and {"frequency": self.clock.frequency, "stop_cycles": self.clock.stop_cycles},
            "observation": [
                {"name": t.name, "source": t.source, "scale": t.scale, "history": b.history}
                for t, b in zip(self.observation.terms, self.observation_layout, strict=True)
            ],
        }

    # ---- sizes and arrays ----

    @property
    def control_period(self) -> float:
        """Seconds between decisions."""
        return 1.0 / self.control_rate

    @property
    def physics_steps(self) -> int:
        """Simulator steps per decision."""
        return round(self.physics_rate / self.control_rate)

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        """Names in the order of every joint array."""
        return tuple(joint.name for joint in self.joints)

    @property
    def num_joints(self) -> int:
        """J, actuated joints."""
        return len(self.joints)

    @property
    def action_dim(self) -> int:
        """A, entries of an action."""
        return len(self.joints)

    @property
    def command_dim(self) -> int:
        """C, entries of a command; 0 where the robot takes none."""
        return len(self.command.names) if self.command else 0

    @property
    def twist_command(self) -> CommandSpec | None:
        """The command section of a robot that follows velocities."""
        return self.command if isinstance(self.command, CommandSpec) else None

    @property
    def pose_command(self) -> PoseCommandSpec | None:
        """The command section of a robot that brings a tool to a pose."""
        return self.command if isinstance(self.command, PoseCommandSpec) else None

    @cached_property
    def chain(self) -> KinematicChain:
        """Kinematics from the base to the tool of the pose command. Raises UserError where there is none."""
        if self.pose_command is None:
            raise UserError(f"{self.name}: has no tool; command.kind pose names one")
        return KinematicChain.read(self.model_path, self.base_frame, self.pose_command.tool, self.joint_names)

    @property
    def observation_dim(self) -> int:
        """O, entries of an observation, histories included."""
        return self.observation_layout[-1].stop

    @cached_property
    def observation_layout(self) -> tuple[TermBlock, ...]:
        """Where each term lies in the observation, in order."""
        count = len(self.joints)
        sizes = {"gyro": 3, "gravity": 3, "command": self.command_dim, "gait_phase": 2}
        sizes |= {"goal_position": 3, "goal_rotation": 3}
        blocks: list[TermBlock] = []
        for term in self.observation.terms:
            start = blocks[-1].stop if blocks else 0
            history = term.history or self.observation.history
            blocks.append(TermBlock(term.name, start, sizes.get(term.name, count), history))
        return tuple(blocks)

    def _array(self, name: str) -> NDArray[np.float64]:
        result = np.array([getattr(joint, name) for joint in self.joints], dtype=np.float64)
        result.setflags(write=False)
        return result

    default_position = cached_property(lambda self: self._array("default"))
    lower = cached_property(lambda self: self._array("lower"))
    upper = cached_property(lambda self: self._array("upper"))
    velocity_limit = cached_property(lambda self: self._array("velocity"))
    effort_limit = cached_property(lambda self: self._array("effort"))
    kp = cached_property(lambda self: self._array("kp"))
    kd = cached_property(lambda self: self._array("kd"))
    action_scale = cached_property(lambda self: self._array("action_scale"))


def shipped_names() -> tuple[str, ...]:
    """Names that `Embodiment.load` accepts without a path."""
    return tuple(sorted(file.parent.name for file in SHIPPED.glob(f"*/{FILE_NAME}")))
