"""What a robot's control receives and what a policy sees of it: the tables of sources and observation terms.

A new sensor is one row of `SOURCES`, one of `READERS` (`envs/robot/simulation.py`) and one of `SOURCE_TOPICS`
(`tdmpc2_ros/messages.py`); a new term of the observation is one row of `TERMS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots.rotations import gravity_direction

if TYPE_CHECKING:
    from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]
Axis = Literal["J", "C"]
"""A length that differs between robots: J joints, C entries of the command."""
CommandKind = Literal["twist", "pose"]


def axis_names(axis: Axis, embodiment: Embodiment) -> tuple[str, ...]:
    """Names of the entries along an axis, in order."""
    if axis == "J":
        return embodiment.joint_names
    return embodiment.command.names if embodiment.command else ()


@dataclass(frozen=True)
class Field:
    """One array of a source's samples: float64, one value per entry."""

    name: str
    entries: tuple[str, ...] | Axis
    unit: str = ""
    optional: bool = False  # may be missing where no term of the observation reads it; None then
    quaternion: bool = False  # the entries are a unit quaternion: others are refused
    noise_term: str = ""  # the term whose noise a simulated sensor adds
    noise_share: float = 1.0  # of that noise

    def entry_names(self, embodiment: Embodiment) -> tuple[str, ...]:
        """Names of the entries for one robot."""
        return self.entries if isinstance(self.entries, tuple) else axis_names(self.entries, embodiment)


@dataclass(frozen=True)
class Source:
    """What control receives from outside, and what a sample of it holds."""

    name: str
    fields: tuple[Field, ...]
    section: str = ""  # key of the embodiment file without which a robot has no such source
    measured: bool = False  # terms say how old a sample may be; else silence is an answer and never stale
    always: bool = False  # control itself needs it, whatever the observation
    named: str = ""  # what an entry is, where messages name their entries: in any order and among others
    check: Callable[[Embodiment, Mapping[str, Any]], None] | None = None  # may correct; raises SensorError

    def present(self, embodiment: Embodiment) -> bool:
        """Whether a robot has this source."""
        return bool(self.fields) and (not self.section or getattr(embodiment, self.section) is not None)


def quaternion_length(values: Array, what: str) -> float:
    """Length of a quaternion (4,). Raises SensorError, about `what`, where it is far from 1."""
    length = math.sqrt(float(values @ values))
    if not 0.9 <= length <= 1.1:
        raise SensorError(f"{what} must be a unit quaternion, its length is {length:.3g}")
    return length


def _check_command(embodiment: Embodiment, fields: Mapping[str, Any]) -> None:
    """A pose as command gets a quaternion of length 1."""
    if embodiment.pose_command:
        quaternion = fields["values"][3:]
        quaternion /= quaternion_length(quaternion, "command: orientation")


SOURCES: dict[str, Source] = {
    row.name: row
    for row in (
        Source(
            "imu",  # in its own frame, orientation in a world whose z points up (REP-145)
            fields=(
                Field("angular_velocity", ("x", "y", "z"), "rad/s", noise_term="gyro"),
                Field(
                    "orientation",
                    ("x", "y", "z", "w"),
                    quaternion=True,
                    noise_term="gravity",
                    noise_share=0.5,  # turning by an angle changes a quaternion by half of it
                ),
            ),
            section="imu_frame",
            measured=True,
        ),
        Source(
            "joints",
            fields=(
                Field("position", "J", "rad", noise_term="joint_position"),
                Field("velocity", "J", "rad/s", optional=True, noise_term="joint_velocity"),
            ),
            measured=True,
            always=True,
            named="joint",
        ),
        Source(
            "command",  # velocities, or a pose in the base frame, as received
            fields=(Field("values", "C", "m/s and rad/s, or m and quaternion"),),
            section="command",
            check=_check_command,
        ),
        Source("self", fields=()),  # what control itself did: `OwnState`
    )
}
"""Every source there is, by name. All of them exist on a real robot."""


@dataclass(slots=True)
class OwnState:
    """What the control of a robot knows without a sensor, at one decision."""

    embodiment: Embodiment
    action: Array  # (A,) sent before, in [-1, 1]
    command: Array  # (C,) in force: velocities after timeout, range and deadband, or a pose; else zeros
    target: Array | None = None  # (J,) rad, sent before; None at the start of an episode
    phase: float | None = None  # cycles, in [0, 1); None while the robot stands
    goal_offset: Array = field(default_factory=lambda: np.zeros(3))  # m, from tool to goal, tool frame
    goal_turn: Array = field(default_factory=lambda: np.zeros(3))  # rotation vector, rad, likewise


@dataclass(frozen=True)
class Term:
    """One quantity that an observation may hold.

    `write` puts its values, in `unit`, into an array (size,), from the newest sample of its source and what
    control knows itself; the sample has one attribute per field, and is None where nothing came from a source
    that is not measured. `noise`, before the scale, is that of training.
    """

    name: str
    source: str
    size: int | Axis
    what: str
    write: Write
    unit: str = ""
    frame: str = ""
    reads: tuple[str, ...] = ()  # optional fields of the source that it needs
    section: str = ""  # key of the embodiment file that it needs beside the source's
    command: CommandKind | None = None  # kind of command that it needs
    scale: float = 1.0  # where the embodiment file gives none
    noise: float = 0.0  # where the embodiment file gives none
    exact: bool = False  # not measured: noise is refused

    def width(self, embodiment: Embodiment) -> int:
        """Values per sample for one robot."""
        return self.size if isinstance(self.size, int) else len(axis_names(self.size, embodiment))

    @property
    def sections(self) -> tuple[str, ...]:
        """Keys of the embodiment file that a robot with this term needs."""
        return tuple(key for key in (SOURCES[self.source].section, self.section) if key)


Write = Callable[[Array, Any, OwnState], None]


def _copy_measured(value: attrgetter[Any], out: Array, sample: Any, own: OwnState) -> None:
    out[:] = value(sample)


def _copy_known(value: attrgetter[Any], out: Array, sample: Any, own: OwnState) -> None:
    out[:] = value(own)


def measured(name: str) -> Write:
    """The values of a field of the source, as they are."""
    return partial(_copy_measured, attrgetter(name))


def known(name: str) -> Write:
    """The values of a field of `OwnState`, as they are."""
    return partial(_copy_known, attrgetter(name))


def _gravity(out: Array, sample: Any, own: OwnState) -> None:
    out[:] = gravity_direction(sample.orientation)


def _joint_position(out: Array, sample: Any, own: OwnState) -> None:
    np.subtract(sample.position, own.embodiment.default_position, out=out)


def _target_error(out: Array, sample: Any, own: OwnState) -> None:
    if own.target is None:
        out[:] = 0.0
    else:
        np.subtract(own.target, sample.position, out=out)


def _gait_phase(out: Array, sample: Any, own: OwnState) -> None:
    if own.phase is None:
        out[:] = 0.0
    else:
        angle = 2.0 * math.pi * own.phase
        out[0], out[1] = np.sin(angle), np.cos(angle)


TERMS: dict[str, Term] = {
    row.name: row
    for row in (
        Term("gyro", "imu", 3, "angular velocity", measured("angular_velocity"), unit="rad/s", frame="IMU"),
        Term("gravity", "imu", 3, "unit vector downwards", _gravity, frame="IMU"),
        Term("joint_position", "joints", "J", "from the default pose", _joint_position, unit="rad"),
        Term(
            "joint_velocity",
            "joints",
            "J",
            "as measured",
            measured("velocity"),
            unit="rad/s",
            reads=("velocity",),
        ),
        Term("target_error", "joints", "J", "last target sent less position", _target_error, unit="rad"),
        Term(
            "goal_position",
            "joints",
            3,
            "from tool to goal; 0 without a goal",
            known("goal_offset"),
            unit="m",
            frame="tool",
            section="command",
            command="pose",
        ),
        Term(
            "goal_rotation",
            "joints",
            3,
            "rotation vector from tool to goal; 0 without a goal",
            known("goal_turn"),
            unit="rad",
            frame="tool",
            section="command",
            command="pose",
        ),
        Term("previous_action", "self", "J", "sent before, in [-1, 1]", known("action")),
        Term(
            "command",
            "command",
            "C",
            "in force, after timeout, range and deadband",
            known("command"),
            unit="m/s, rad/s",
            frame="base",
            command="twist",
            exact=True,
        ),
        Term(
            "gait_phase",
            "self",
            2,
            "sine and cosine; 0 while the robot stands",
            _gait_phase,
            section="clock",
            exact=True,
        ),
    )
}
"""Every observation term there is, by name."""
