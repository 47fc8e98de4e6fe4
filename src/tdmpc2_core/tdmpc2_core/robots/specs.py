"""The sections of an embodiment file that a policy, a node and a simulation share. SI units and radians."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.config import setting
from tdmpc2_core.config_values import Place, convert
from tdmpc2_core.config_words import closest, describe

TermName = Literal[
    "gyro",
    "gravity",
    "joint_position",
    "joint_velocity",
    "target_error",
    "goal_position",
    "goal_rotation",
    "previous_action",
    "command",
    "gait_phase",
]
SourceName = Literal["imu", "joints", "command", "self"]
CommandName = Literal["linear_x", "linear_y", "linear_z", "angular_x", "angular_y", "angular_z"]

TERM_SOURCES: dict[str, str] = {
    "gyro": "imu",
    "gravity": "imu",
    "joint_position": "joints",
    "joint_velocity": "joints",
    "target_error": "joints",
    "goal_position": "joints",
    "goal_rotation": "joints",
    "previous_action": "self",
    "command": "command",
    "gait_phase": "self",
}
"""Every observation term there is, and the source it is made from. All of them exist on a real robot."""


@dataclass(frozen=True)
class Joint:
    """One actuated joint. Its place in `Embodiment.joints` is its place in every joint and action array."""

    name: str = setting(why="joint name as in joint_states, URDF and MJCF")
    default: float = setting(unit="rad", why="position that action 0 asks for")
    lower: float = setting(unit="rad", why="lower position limit")
    upper: float = setting(unit="rad", why="upper position limit")
    action_scale: float = setting(unit="rad", above=0, why="change of the target for a full action of 1")
    kp: float = setting(unit="N m/rad", above=0, why="proportional gain of the position servo")
    kd: float = setting(unit="N m s/rad", low=0, why="damping gain of the position servo")
    velocity: float = setting(unit="rad/s", above=0, why="velocity limit")
    effort: float = setting(unit="N m", above=0, why="effort limit")

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if self.lower >= self.upper:
            raise ValueError(
                f"lower of {self.name!r} must be below upper, got {self.lower:g}, {self.upper:g}"
            )
        if not self.lower <= self.default <= self.upper:
            raise ValueError(
                f"default of {self.name!r} must lie in [{self.lower:g}, {self.upper:g}], got {self.default:g}"
            )


@dataclass(frozen=True)
class ActionSpec:
    """What an action means and how the target moves between decisions."""

    kind: Literal["position", "delta"] = setting(
        "position", why="targets = action_scale * action + default pose, or + the targets before (delta)"
    )
    interpolation: Literal["linear", "step"] = setting(
        "linear", why="ramp over one control period, as joint_trajectory_controller does, or step"
    )


@dataclass(frozen=True)
class CommandTerm:
    """One component of the command, named as in geometry_msgs/Twist, and the range a policy trains for."""

    name: CommandName = setting(why="Twist component")
    lower: float = setting(unit="m/s or rad/s", why="smallest command that is passed on")
    upper: float = setting(unit="m/s or rad/s", why="largest command that is passed on")

    def __post_init__(self) -> None:
        if not self.lower <= 0.0 <= self.upper or self.lower >= self.upper:
            raise ValueError(f"range of {self.name} must hold 0, got [{self.lower:g}, {self.upper:g}]")


@dataclass(frozen=True)
class CommandSpec:
    """A velocity that an operator can ask for. The other kind is `pose_command.PoseCommandSpec`."""

    terms: tuple[CommandTerm, ...] = setting(why="order of the command vector")
    deadband: float = setting(0.0, low=0, why="below it in every term the robot stands")
    timeout: float = setting(0.5, unit="s", above=0, why="silence after which the command counts as zero")
    kind: Literal["twist"] = setting("twist", why="geometry_msgs/Twist")
    stand_fraction: float = setting(0.0, low=0, high=1, why="training: share of commands that are zero")
    resample_seconds: float = setting(5.0, unit="s", above=0, why="training: time between new commands")
    term_probability: float = setting(
        1.0, low=0, high=1, why="training: chance that a drawn command keeps a term; else it is 0"
    )

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError(
                "terms must hold at least one; leave the whole section out for a robot without commands"
            )
        no_duplicates("terms", [term.name for term in self.terms])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms in the order of the command vector."""
        return tuple(term.name for term in self.terms)

    def velocity(self, command: ArrayLike) -> NDArray[np.float64]:
        """Base velocity (3,) that a command (C,) asks for: forward and lateral, m/s, yaw rate, rad/s."""
        asked = dict(zip(self.names, np.asarray(command, dtype=np.float64), strict=True))
        return np.array([asked.get(name, 0.0) for name in ("linear_x", "linear_y", "angular_z")])


@dataclass(frozen=True)
class ClockSpec:
    """The gait phase in the observation, and the gait that it stands for."""

    frequency: float = setting(unit="Hz", above=0, why="cycles per second while the robot moves")
    duty: float = setting(0.6, above=0, below=1, why="share of a cycle that a foot is on the ground")
    feet: tuple[str, ...] = setting((), why="foot geoms of the robot model")
    offsets: tuple[float, ...] = setting((), unit="cycles", why="phase of each foot, in the order of feet")
    stop_cycles: int = setting(
        0,
        low=0,
        unit="cycles",
        why="after the command became zero: 0 stops in mid step, 1 finishes the cycle, 2 adds one",
    )

    def __post_init__(self) -> None:
        no_duplicates("feet", list(self.feet))
        if len(self.offsets) != len(self.feet):
            raise ValueError(
                f"offsets must hold {len(self.feet)} values, one per foot, got {len(self.offsets)}"
            )


@dataclass(frozen=True)
class ObservationTerm:
    """One block of the observation vector."""

    name: TermName = setting(why="which quantity")
    source: SourceName = setting(why="where it comes from")
    scale: float = setting(1.0, above=0, why="factor on the quantity in SI units")
    noise: float = setting(0.0, low=0, why="training: half width of uniform noise, before the scale")
    max_age: float | None = setting(None, unit="s", above=0, why="oldest sample that may be used")
    history: int | None = setting(None, low=1, why="samples kept; the section's history if absent")

    def __post_init__(self) -> None:
        wanted = TERM_SOURCES[self.name]
        if self.source != wanted:
            raise ValueError(f"source of {self.name} must be {wanted}, got {self.source}")
        measured = wanted in ("imu", "joints")
        if measured and self.max_age is None:
            raise ValueError(f"{self.name} needs max_age in seconds, as every term of source {wanted} does")
        if not measured and self.max_age is not None:
            raise ValueError(f"{self.name} must not have max_age: only terms of source imu and joints do")
        if self.name in ("command", "gait_phase") and self.noise:
            raise ValueError(f"{self.name} must not have noise: it is not measured")


@dataclass(frozen=True)
class ObservationSpec:
    """The observation vector: its terms in order."""

    terms: tuple[ObservationTerm, ...] = setting(why="blocks of the vector in order")
    history: int = setting(1, low=1, why="samples kept per term unless the term says otherwise")

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError(f"terms must hold at least one of {', '.join(TERM_SOURCES)}")
        no_duplicates("terms", [term.name for term in self.terms])

    @property
    def max_ages(self) -> dict[str, float]:
        """For each measured source that a term uses, the smallest max_age (s) of its terms."""
        ages: dict[str, float] = {}
        for term in self.terms:
            if term.max_age is not None:
                ages[term.source] = min(term.max_age, ages.get(term.source, term.max_age))
        return ages

    def has(self, name: str) -> bool:
        """True when a term of that name is part of the observation."""
        return any(term.name == name for term in self.terms)


@dataclass(frozen=True)
class SafetySpec:
    """Limits on what is sent to the joints, whatever the policy asks for."""

    position_margin: float = setting(0.0, unit="rad", low=0, why="kept from every joint limit")
    max_target_rate: float = setting(20.0, unit="rad/s", above=0, why="largest change of a position target")
    max_effort_fraction: float = setting(
        1.0, above=0, high=1, why="share of a joint's effort that kp * (target - position) may ask for"
    )


def no_duplicates(key: str, names: list[str]) -> None:
    """Raise ValueError when a name stands in the list `key` more than once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{key} name {', '.join(twice)} more than once; each name may appear once")


def joints_from_section(section: Any, place: Place) -> tuple[Joint, ...]:
    """The joints of ``{defaults: {...}, list: [...]}``: each entry completed by the defaults."""
    if not isinstance(section, Mapping) or not isinstance(section.get("list"), (list, tuple)):
        raise place.error(f"expected a section with keys defaults and list, got {describe(section)}")
    keys = [f.name for f in fields(Joint) if f.name != "name"]
    defaults = section.get("defaults") or {}
    for name in section:
        if name not in ("defaults", "list"):
            raise place.error(f"unknown key {name!r}; accepted: defaults, list")
    if not isinstance(defaults, Mapping):
        raise place.child("defaults").error(f"expected a section, got {describe(defaults)}")
    for name in defaults:
        if name not in keys:
            hint = f"{closest(name, keys)}; accepted: {', '.join(keys)}"
            raise place.child("defaults").error(f"unknown key {name!r}{hint}")
    entries = place.child("list")
    return tuple(
        convert(Joint, {**defaults, **item} if isinstance(item, Mapping) else item, entries.item(i))
        for i, item in enumerate(section["list"])
    )
