"""Embodiment: everything the suite knows about one robot, read from one YAML file next to its MJCF.

Used unchanged by training, the simulation node, planner node and bag replay. Frozen; arrays are read-only.
The sections come in the order of the file, then the robot that they make up, then its rules.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.config import Place, closest, convert, describe, from_mapping, read_yaml, setting, to_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.kinematics import KinematicChain
from tdmpc2_core.robots.terms import SOURCES, TERMS

FILE_NAME = "embodiment.yaml"
SHIPPED = Path(__file__).parent / "models"

Point = tuple[float, float, float]
Range = tuple[float, float]
CommandName = Literal["linear_x", "linear_y", "linear_z", "angular_x", "angular_y", "angular_z"]
POSE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw")
"""Entries of a pose command: position in m and unit quaternion, both in the robot's base frame."""


def _no_duplicates(key: str, names: list[str]) -> None:
    """Raise ValueError when a name stands in the list `key` more than once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{key} name {', '.join(twice)} more than once; each name may appear once")


@dataclass(frozen=True)
class JointSpec:
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
    """A velocity that an operator can ask for. The other kind is `PoseCommandSpec`."""

    terms: tuple[CommandTerm, ...] = setting(why="order of the command vector")
    deadband: float = setting(0.0, low=0, why="below it in every term the robot stands")
    timeout: float = setting(0.5, unit="s", above=0, why="silence after which the command counts as zero")
    kind: Literal["twist"] = setting("twist", why="geometry_msgs/Twist")
    heading_hold: float = setting(
        0.0, unit="1/s", low=0, high=5, why="yaw rate that control adds per rad off the commanded heading"
    )
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
        _no_duplicates("terms", [term.name for term in self.terms])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms in the order of the command vector."""
        return tuple(term.name for term in self.terms)

    @cached_property
    def limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest command, (C,) each."""
        return np.array([term.lower for term in self.terms]), np.array([term.upper for term in self.terms])

    def in_force(self, command: ArrayLike) -> NDArray[np.float64]:
        """What is passed on of received commands (..., C): inside the range, zero inside the deadband."""
        low, high = self.limits
        result = np.minimum(np.maximum(command, low), high)
        silent = np.maximum.reduce(np.abs(result), axis=-1) < self.deadband
        if np.count_nonzero(silent):
            result[silent] = 0.0
        return result

    def velocity(self, command: ArrayLike) -> NDArray[np.float64]:
        """Base velocities (..., 3) that commands (..., C) ask for: forward, lateral, m/s, yaw rate, rad/s."""
        asked = np.asarray(command, dtype=np.float64)
        result = np.zeros((*asked.shape[:-1], 3))
        for place, name in enumerate(("linear_x", "linear_y", "angular_z")):
            if name in self.names:
                result[..., place] = asked[..., self.names.index(name)]
        return result


@dataclass(frozen=True)
class PoseCommandSpec:
    """A goal for the tool, as geometry_msgs/PoseStamped in `base_frame`. Without a goal the robot holds.

    A goal stands until another comes or it is cleared. Training draws goals as tool poses of joint positions
    within `joint_span` of the default pose, inside the box, with every link above `clearance`.
    """

    kind: Literal["pose"] = setting(why="geometry_msgs/PoseStamped")
    tool: str = setting(why="site or body of the robot model that is brought to the goal")
    lower: Point = setting(unit="m", why="lowest x, y, z of a goal that is accepted, in the base frame")
    upper: Point = setting(unit="m", why="highest x, y, z of a goal that is accepted")
    joint_span: tuple[float, ...] = setting(unit="rad", low=0, why="training: one half width per joint")
    clearance: float = setting(0.0, unit="m", why="training: height of links behind the first two, and tool")
    position_tolerance: float = setting(0.02, unit="m", above=0, why="distance at which a goal is reached")
    rotation_tolerance: float = setting(0.1, unit="rad", above=0, why="angle reported beside it")
    reach_seconds: float = setting(2.0, unit="s", above=0, why="time in which a goal is to be reached")
    stand_fraction: float = setting(0.0, low=0, high=1, why="training: share of goals that are where it is")
    resample_seconds: float = setting(4.0, unit="s", above=0, why="training: time between new goals")

    def __post_init__(self) -> None:
        if not self.tool:
            raise ValueError("tool must not be empty")
        for axis, low, high in zip("xyz", self.lower, self.upper, strict=True):
            if low >= high:
                raise ValueError(f"lower {axis} must be below upper {axis}, got {low:g} and {high:g} m")
        if self.resample_seconds < self.reach_seconds:
            raise ValueError(
                f"resample_seconds must be at least reach_seconds ({self.reach_seconds:g} s), "
                f"got {self.resample_seconds:g} s"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries in the order of the command vector."""
        return POSE_NAMES

    def outside(self, position: Point) -> str:
        """Why a goal's position, m, lies outside the box; empty where it does not."""
        for axis, value, low, high in zip("xyz", position, self.lower, self.upper, strict=True):
            if not low <= value <= high:
                return f"{axis} is {value:.3f} m, must lie in [{low:g}, {high:g}] m"
        return ""


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
        _no_duplicates("feet", list(self.feet))
        if len(self.offsets) != len(self.feet):
            raise ValueError(
                f"offsets must hold {len(self.feet)} values, one per foot, got {len(self.offsets)}"
            )

    def stance(self, phase: ArrayLike | None) -> NDArray[np.bool_]:
        """Which feet the gait wants on the ground (..., F): all while standing.

        Phases (...) lie in [0, 1); None, or NaN of one among many, while the robot stands.
        """
        at = np.asarray(np.nan if phase is None else phase, dtype=np.float64)[..., None]
        return np.isnan(at) | ((at + np.asarray(self.offsets)) % 1.0 < self.duty)


@dataclass(frozen=True)
class ObservationTerm:
    """One block of the observation vector: a row of `terms.TERMS`, and how this robot's policy sees it."""

    name: str = setting(accepted=TERMS, why="which quantity")
    source: str = setting(accepted=SOURCES, why="where it comes from")
    scale: float = setting(None, above=0, why="factor on the quantity; 1 unless its row says otherwise")
    noise: float = setting(
        None,
        low=0,
        why="training: half width of uniform noise, before the scale; 0 unless its row says otherwise",
    )
    max_age: float | None = setting(None, unit="s", above=0, why="oldest sample that may be used")
    history: int | None = setting(None, low=1, why="samples kept; the section's history if absent")

    def __post_init__(self) -> None:
        row = TERMS[self.name]
        for key in ("scale", "noise"):
            if getattr(self, key) is None:
                object.__setattr__(self, key, getattr(row, key))
        if self.source != row.source:
            raise ValueError(f"source of {self.name} must be {row.source}, got {self.source}")
        measured = SOURCES[row.source].measured
        if measured and self.max_age is None:
            raise ValueError(
                f"{self.name} needs max_age in seconds, as every term of source {row.source} does"
            )
        if not measured and self.max_age is not None:
            aged = " and ".join(source.name for source in SOURCES.values() if source.measured)
            raise ValueError(f"{self.name} must not have max_age: only terms of source {aged} do")
        if row.exact and self.noise:
            raise ValueError(f"{self.name} must not have noise: it is not measured")


@dataclass(frozen=True)
class ObservationSpec:
    """The observation vector: its terms in order."""

    terms: tuple[ObservationTerm, ...] = setting(why="blocks of the vector in order")
    history: int = setting(1, low=1, why="samples kept per term unless the term says otherwise")

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError(f"terms must hold at least one of {', '.join(TERMS)}")
        _no_duplicates("terms", [term.name for term in self.terms])

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
    plan_on: int = setting(
        2,
        low=0,
        unit="control periods",
        why="the plan is played on for as long without fresh sensors before the robot is held",
    )
    posture: dict[str, float] = setting(
        factory=dict,
        hash=False,
        unit="rad",
        why="targets of joints where a supervisor stops the robot; the default pose of others",
    )
    balance: bool = setting(
        False,
        hash=False,
        why="a supervisor keeps the robot upright by the policy prior at a command of zero: no pose does",
    )
    posture_seconds: float = setting(
        0.5, unit="s", above=0, why="to get there: slow enough for the rates of the joints, before it tips"
    )


@dataclass(frozen=True)
class PlausibilitySpec:
    """What the robot's sensors can truly say; `robots/plausibility.py` judges live samples by it.

    The defaults follow from the joints' limits and suit any robot that the suite was tried on.
    """

    limit_margin: float = setting(
        0.3, unit="rad", low=0, why="beyond a joint's limits: its stops give way and encoders are offset"
    )
    velocity_factor: float = setting(
        3.0, low=1, unit="velocity limits", why="largest velocity that counts: impacts exceed the drive's own"
    )
    position_error: float = setting(
        0.1,
        unit="rad",
        above=0,
        why="of a step that velocity does not explain: noise, play and late velocity",
    )
    velocity_error: float = setting(
        0.25, low=0, unit="velocity limits", why="error of a measured velocity between two samples"
    )
    gyro_limit: float = setting(35.0, unit="rad/s", above=0, why="range of a gyro, 2000 deg/s")
    turn_error: float = setting(0.2, unit="rad", above=0, why="noise and corrections of an IMU's filter")
    gyro_error: float = setting(
        10.0, unit="rad/s", low=0, why="error of the gyro between two samples: impacts are shorter"
    )
    frozen_seconds: float | None = setting(
        None, unit="s", above=0, why="equal samples in a row while another source moves; max_age if absent"
    )
    filter_seconds: float = setting(
        5.0, unit="s", above=0, why="without a command that the safety filter left as it was: a warning"
    )


@dataclass(frozen=True)
class ResetSpec:
    """The state that an episode starts in."""

    base_height: float | None = setting(
        None, unit="m", above=0, why="height of the base; the model's if absent"
    )
    joint_noise: float = setting(0.0, unit="rad", low=0, why="half width of noise around the default pose")
    velocity_noise: float = setting(0.0, unit="m/s, rad/s", low=0, why="half width of uniform base velocity")


@dataclass(frozen=True)
class RewardTerm:
    """One reward term; keys other than name and weight are numeric parameters of its function."""

    name: str = setting(why="function in robots/rewards.py")
    weight: float = setting(why="reward per decision for a term value of 1")
    params: dict[str, float] = setting(factory=dict, rest=True, hash=False, why="parameters of the function")


@dataclass(frozen=True)
class RewardSpec:
    """The reward: a sum of weighted terms."""

    terms: tuple[RewardTerm, ...] = setting((), why="terms that are summed")
    velocity_time_constant: float = setting(
        0.0, unit="s", low=0, why="tracking terms average base velocities over it: a gait sways by nature"
    )

    def __post_init__(self) -> None:
        _no_duplicates("terms", [term.name for term in self.terms])


@dataclass(frozen=True)
class TerminationSpec:
    """When an episode ends because the robot fell; an absent limit is not applied."""

    min_base_height: float | None = setting(None, unit="m", why="trunk above ground")
    max_tilt: float | None = setting(None, unit="rad", above=0, why="trunk z axis from vertical")

    def reached(self, height: Any, tilt: Any) -> Any:
        """Whether trunks `height` m above ground, tilted by `tilt` rad, have fallen: numbers or arrays."""
        low = height < (-np.inf if self.min_base_height is None else self.min_base_height)
        return low | (tilt > (np.inf if self.max_tilt is None else self.max_tilt))


@dataclass(frozen=True)
class CurriculumSpec:
    """Ranges at level 1, where those of `randomisation` itself are level 0; levels between mix both.

    A range that is absent stays as it is. Every robot has a level of its own, which success moves.
    """

    success: float = setting(
        why="reward per decision, mean of an episode without a fall, that raises the level"
    )
    failure: float | None = setting(
        None, why="reward per decision, mean of an episode, below which the level sinks as after a fall"
    )
    start: float = setting(0.0, low=0, high=1, why="level of a robot's first episode")
    rise: float = setting(0.05, low=0, high=1, why="of the level by a success")
    drop: float = setting(0.1, low=0, high=1, why="of the level by a fall")
    friction: Range | None = setting(None, low=0, why="sliding friction")
    base_mass: Range | None = setting(None, unit="kg", why="added to the trunk")
    gain: Range | None = setting(None, above=0, why="factor on kp and kd, per joint")
    delay: Range | None = setting(None, unit="s", low=0, why="from decision to the command's arrival")
    push_velocity: float | None = setting(None, unit="m/s", low=0, why="largest change of base velocity")
    push_force: float | None = setting(None, unit="N", low=0, why="largest force")
    payload: Range | None = setting(None, unit="kg", low=0, why="mass that is carried")
    payload_offset: Range | None = setting(None, unit="m", low=0, why="its distance from the middle")
    weak_joint: Range | None = setting(None, above=0, high=1, why="factor on the effort of one joint")
    slope: Range | None = setting(None, unit="degrees", low=0, high=45, why="of the ground")
    step: Range | None = setting(None, unit="m", low=0, why="height of blocks on the ground")
    wave: Range | None = setting(None, unit="m", low=0, why="height of waves of the ground")

    def __post_init__(self) -> None:
        _ordered(self, RANGES)


RANGES = (
    *("friction", "base_mass", "gain", "delay"),
    *("payload", "payload_offset", "weak_joint", "slope", "step", "wave"),
)
"""Ranges of `randomisation`, each [lowest, highest]."""


def _ordered(spec: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError when one of these ranges is upside down."""
    for name in names:
        value = getattr(spec, name)
        if value is not None and value[0] > value[1]:
            raise ValueError(f"{name} must be [lowest, highest], got [{value[0]:g}, {value[1]:g}]")


@dataclass(frozen=True)
class RandomisationSpec:
    """Ranges drawn per episode, applied where training asks for them."""

    friction: Range | None = setting(None, low=0, why="sliding friction; the model's own if absent")
    base_mass: Range = setting((0.0, 0.0), unit="kg", why="added to the trunk")
    gain: Range = setting((1.0, 1.0), above=0, why="factor on kp and kd, per joint")
    delay: Range = setting((0.0, 0.0), unit="s", low=0, why="from decision to the command's arrival")
    push_interval: float | None = setting(
        None, unit="s", above=0, why="mean time between pushes; none if absent"
    )
    push_velocity: float = setting(0.0, unit="m/s", low=0, why="largest change of horizontal base velocity")
    push_force: float = setting(
        0.0, unit="N", low=0, why="largest force: on the tool of a fixed robot, else horizontal on the base"
    )
    push_seconds: float = setting(0.2, unit="s", above=0, why="how long that force lasts")
    payload: Range = setting(
        (0.0, 0.0), unit="kg", low=0, why="cube of 10 cm on the base, or at the tool where the base is fixed"
    )
    payload_offset: Range = setting(
        (0.0, 0.0), unit="m", low=0, why="from the z axis of base or tool, in any direction across it"
    )
    payload_height: float = setting(0.0, unit="m", why="along that axis")
    weak_joint: Range = setting((1.0, 1.0), above=0, high=1, why="factor on the effort of one drawn joint")
    slope: Range = setting((0.0, 0.0), unit="degrees", low=0, high=45, why="of the ground, in any direction")
    step: Range = setting((0.0, 0.0), unit="m", low=0, why="height of square blocks on half of the ground")
    step_length: float = setting(0.4, unit="m", low=0.1, high=3.2, why="side of a block")
    wave: Range = setting((0.0, 0.0), unit="m", low=0, why="height of waves, from lowest to highest")
    wave_length: float = setting(1.6, unit="m", low=0.2, why="nearly: a whole number fits where it repeats")
    curriculum: CurriculumSpec | None = setting(None, why="harder ranges, approached by success")

    def __post_init__(self) -> None:
        _ordered(self, RANGES)
        if self.curriculum and self.curriculum.friction and not self.friction:
            raise ValueError("curriculum.friction needs friction, the range that it starts from")

    def at(self, level: float) -> RandomisationSpec:
        """The ranges at a level of the curriculum, from 0 to 1; the same everywhere without one."""
        if self.curriculum is None or not level:
            return self
        mixed: dict[str, Any] = {}
        for name in (*RANGES, "push_velocity", "push_force"):
            easy, hard = getattr(self, name), getattr(self.curriculum, name)
            if hard is not None:
                value = (1.0 - level) * np.array(easy) + level * np.array(hard)
                mixed[name] = tuple(value.tolist()) if value.ndim else float(value)
        return replace(self, **mixed)

    @cached_property
    def hardest(self) -> RandomisationSpec:
        """The widest of each range over all levels."""
        ends = self, self.at(1.0)
        spans = {name: [getattr(end, name) for end in ends] for name in RANGES}
        widest: dict[str, Any] = {
            name: (min(low for low, _ in both), max(high for _, high in both))
            for name, both in spans.items()
            if None not in both
        }
        for name in ("push_velocity", "push_force"):
            widest[name] = max(getattr(end, name) for end in ends)
        return replace(self, **widest)

    @property
    def terrain(self) -> bool:
        """Whether some level has other ground than the robot model."""
        return max(self.hardest.slope[1], self.hardest.step[1], self.hardest.wave[1]) > 0.0


@dataclass(frozen=True)
class PlantSpec:
    """How this machine differs from its robot model and its `joints` section, as `tdmpc2 identify` finds it.

    Simulation starts from it; what control, safety and a policy's fingerprint read stays as it is.
    """

    friction: float | None = setting(None, low=0, why="sliding friction; the model's own if absent")
    mass: float = setting(0.0, unit="kg", why="on the base, in the hand of a fixed robot; below 0: lighter")
    mass_offset: Point = setting((0.0, 0.0, 0.0), unit="m", why="its place from the origin of base or tool")
    kp: tuple[float, ...] = setting((), above=0, why="factor on kp, one per joint; 1 if absent")
    kd: tuple[float, ...] = setting((), low=0, why="factor on kd, one per joint; 1 if absent")
    effort: tuple[float, ...] = setting((), above=0, why="factor on the effort limit, one per joint")

    def factors(self, name: str, joints: int) -> NDArray[np.float64]:
        """The factors (J,) kp, kd or effort."""
        given = getattr(self, name)
        return np.array(given, dtype=np.float64) if given else np.ones(joints)


@dataclass(frozen=True)
class DemonstrationSpec:
    """The scripted controller that seeds the replay buffer; keys other than kind are its settings."""

    kind: str = setting(why="controller in teachers/demonstrator.py")
    noise: float = setting(
        0.3, unit="normalised action", low=0, why="largest standing noise; bursts have 5/3 of it"
    )
    params: dict[str, float] = setting(
        factory=dict, rest=True, hash=False, why="settings of the controller, by the names it declares"
    )


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
    joints: tuple[JointSpec, ...] = setting(why="order of the action vector and of every joint array")
    observation: ObservationSpec = setting(why="what the policy sees")
    format: Literal[1] = setting(1, why="version of this file's layout")
    task: str = setting("", why="what the robot is to do, in words")
    base_frame: str = setting("base_link", why="REP-105 name of the body frame")
    imu_frame: str | None = setting(None, why="frame of the IMU; needed when a term comes from it")
    action: ActionSpec = setting(ActionSpec(), why="what an action means")
    command: CommandSpec | PoseCommandSpec | None = setting(None, why="what an operator can ask for")
    clock: ClockSpec | None = setting(None, why="gait phase")
    safety: SafetySpec = setting(SafetySpec(), why="limits on what is sent")
    plausibility: PlausibilitySpec = setting(PlausibilitySpec(), why="what its sensors can truly say")
    episode_seconds: float = setting(20.0, unit="s", above=0, why="length of a training episode")
    reset: ResetSpec = setting(ResetSpec(), why="start of an episode")
    reward: RewardSpec = setting(RewardSpec(), why="training reward")
    termination: TerminationSpec = setting(TerminationSpec(), why="end of an episode")
    randomisation: RandomisationSpec = setting(RandomisationSpec(), why="domain randomisation")
    plant: PlantSpec = setting(PlantSpec(), why="how this machine differs from its model")
    demonstration: DemonstrationSpec | None = setting(None, why="scripted controller")
    directory: Path | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check(self)

    # ---- reading and writing ----

    @staticmethod
    def load(path_or_name: str | os.PathLike[str]) -> Embodiment:
        """A shipped robot by name, a directory with embodiment.yaml, or such a file. Raises UserError."""
        path, shipped = Path(path_or_name), shipped_names()
        if str(path_or_name) in shipped:
            path = SHIPPED / str(path_or_name)
        elif not _exists(path):
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
            sections["joints"] = _joints(sections["joints"], place.child("joints"))
        result = from_mapping(Embodiment, sections, where)
        if directory is not None:
            if Path(result.model).is_absolute() or ".." in Path(result.model).parts:
                raise UserError(
                    f"{where}: model: {result.model!r} leads out of {directory}; keep it beside the YAML"
                )
            if not _exists(Path(directory) / result.model) or not (Path(directory) / result.model).is_file():
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
    def safe_posture(self) -> NDArray[np.float64] | None:
        """Targets (J,), rad, where a supervisor stops the robot; None: where it is, as it cannot fall."""
        spec, given = self.termination, self.safety.posture
        if not given and spec.max_tilt is None and spec.min_base_height is None:
            return None
        return np.array([given.get(joint.name, joint.default) for joint in self.joints])

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
    def sources(self) -> tuple[str, ...]:
        """Sources that control listens to: of the observation, joints, and a command where there is one."""
        used = {term.source for term in self.observation.terms}
        return tuple(
            row.name
            for row in SOURCES.values()
            if row.present(self) and (row.name in used or row.always or not row.measured)
        )

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
        blocks: list[TermBlock] = []
        for term in self.observation.terms:
            start = blocks[-1].stop if blocks else 0
            history = term.history or self.observation.history
            blocks.append(TermBlock(term.name, start, TERMS[term.name].width(self), history))
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


def _exists(path: Path) -> bool:
    """Whether a path leads to something; False for what no path can be, such as names of 300 characters."""
    try:
        return path.exists()
    except OSError:
        return False


def shipped_names() -> tuple[str, ...]:
    """Names that `Embodiment.load` accepts without a path."""
    return tuple(sorted(file.parent.name for file in SHIPPED.glob(f"*/{FILE_NAME}")))


def _joints(section: Any, place: Place) -> tuple[JointSpec, ...]:
    """The joints of ``{defaults: {...}, list: [...]}``: each entry completed by the defaults."""
    if not isinstance(section, Mapping) or not isinstance(section.get("list"), (list, tuple)):
        raise place.error(f"expected a section with keys defaults and list, got {describe(section)}")
    keys = [f.name for f in fields(JointSpec) if f.name != "name"]
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
        convert(JointSpec, {**defaults, **item} if isinstance(item, Mapping) else item, entries.item(i))
        for i, item in enumerate(section["list"])
    )


def _check(embodiment: Embodiment) -> None:
    """Raise ValueError with one sentence about the first rule that is broken."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", embodiment.name):
        raise ValueError(
            "name must hold letters, digits, '_', '-' and '.' only, as it becomes part of file names, "
            f"got {embodiment.name!r}"
        )
    _check_joints(embodiment)
    _check_rates(embodiment)
    _check_terms(embodiment)
    pose = embodiment.pose_command
    if pose and len(pose.joint_span) != embodiment.num_joints:
        raise ValueError(
            f"command.joint_span must hold {embodiment.num_joints} values, one per joint, "
            f"got {len(pose.joint_span)}"
        )


def _check_joints(embodiment: Embodiment) -> None:
    names, margin = embodiment.joint_names, embodiment.safety.position_margin
    if not names:
        raise ValueError("joints.list must name at least one joint")
    _no_duplicates("joints.list", list(names))
    for key in ("kp", "kd", "effort"):
        if (count := len(getattr(embodiment.plant, key))) not in (0, len(names)):
            raise ValueError(f"plant.{key} must hold {len(names)} values, one per joint, got {count}")
    for joint in embodiment.joints:
        room = min(joint.default - joint.lower, joint.upper - joint.default)
        if margin > room:
            raise ValueError(
                f"safety.position_margin ({margin:g} rad) leaves the default of {joint.name!r} outside its "
                f"limits; at most {room:g} fits"
            )

    limits = {joint.name: (joint.lower, joint.upper) for joint in embodiment.joints}
    for name, target in embodiment.safety.posture.items():
        if name not in limits:
            raise ValueError(f"safety.posture has {name!r}, which is no joint{closest(name, limits)}")
        if not limits[name][0] <= target <= limits[name][1]:
            raise ValueError(f"safety.posture of {name!r} is {target:g} rad, outside its limits")


def _check_rates(embodiment: Embodiment) -> None:
    steps = embodiment.physics_rate / embodiment.control_rate
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
        raise ValueError(
            f"physics_rate must be a whole multiple of control_rate ({embodiment.control_rate:g} Hz), "
            f"got {embodiment.physics_rate:g} Hz"
        )


def _check_terms(embodiment: Embodiment) -> None:
    used = [row for name, row in TERMS.items() if embodiment.observation.has(name)]
    for row in used:
        for section in row.sections:
            if getattr(embodiment, section) is None:
                raise ValueError(f"observation.terms has {row.name}, which needs the key {section!r}")
    for row in used:
        if row.command and embodiment.command and embodiment.command.kind != row.command:
            raise ValueError(
                f"observation.terms has {row.name}, which needs command.kind {row.command}, "
                f"got {embodiment.command.kind}"
            )
