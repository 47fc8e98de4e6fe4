"""The sections of an embodiment file that only the training environment reads. SI units and radians.

Every one may be absent; its defaults then change nothing (no noise, no randomisation, no termination).
"""

from __future__ import annotations

from dataclasses import dataclass

from tdmpc2_core.config import setting
from tdmpc2_core.robots.specs import no_duplicates

Range = tuple[float, float]


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

    name: str = setting(why="function in envs/rewards.py")
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
        no_duplicates("terms", [term.name for term in self.terms])


@dataclass(frozen=True)
class TerminationSpec:
    """When an episode ends because the robot fell; an absent limit is not applied."""

    min_base_height: float | None = setting(None, unit="m", why="trunk above ground")
    max_tilt: float | None = setting(None, unit="rad", above=0, why="trunk z axis from vertical")


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
    push_force: float = setting(0.0, unit="N", low=0, why="largest force on the tool of a robot with one")
    push_seconds: float = setting(0.2, unit="s", above=0, why="how long that force lasts")

    def __post_init__(self) -> None:
        for name in ("friction", "base_mass", "gain", "delay"):
            value = getattr(self, name)
            if value is not None and value[0] > value[1]:
                raise ValueError(f"{name} must be [lowest, highest], got [{value[0]:g}, {value[1]:g}]")


@dataclass(frozen=True)
class DemonstrationSpec:
    """The scripted controller that seeds the replay buffer; keys other than kind are its settings."""

    kind: str = setting(why="controller in envs/demonstrator.py")
    noise: float = setting(
        0.3, unit="normalised action", low=0, why="largest standing noise; bursts have 5/3 of it"
    )
    params: dict[str, float] = setting(
        factory=dict, rest=True, hash=False, why="settings of the controller, by the names it declares"
    )
