"""What can be identified: the rows of a table, and how their values make a plant and a delay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.embodiment import Embodiment, PlantSpec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """One number of the robot.

    Attributes:
        name: such as `friction` or `effort FL_hip_joint`.
        kind: what it belongs to: friction, mass, mass_x, mass_y, kp, kd, effort or delay.
        joint: index among the joints of one that has its own; None for all.
        nominal: the model's value, at which it stays where the data do not say.
        low, high: range in which it is looked for.
        step: change that its effect is measured by.
        unit: of all these.
    """

    name: str
    kind: str
    joint: int | None
    nominal: float
    low: float
    high: float
    step: float
    unit: str = ""


MAX_DELAY = 0.08
"""Largest delay of a command that is looked for, s."""


def parameters(robot: Embodiment, friction: float, joint_gains: bool = False) -> tuple[Parameter, ...]:
    """All that can be asked of a robot; friction and x, y of the mass of a walking one.

    Args:
        robot: its model is the nominal.
        friction: sliding friction of the model.
        joint_gains: a factor on kp and kd for every joint instead of one for all.
    """
    delay, names = 0.5 * sum(robot.randomisation.delay), robot.joint_names
    floats = robot.imu_frame is not None and robot.clock is not None
    rows = [Parameter("delay", "delay", None, delay, 0.0, MAX_DELAY, 0.5 / robot.physics_rate, "s")]
    rows.append(Parameter("mass", "mass", None, 0.0, -1.0, 6.0, 0.25, "kg"))
    if floats:
        rows += [Parameter(f"mass_{axis}", f"mass_{axis}", None, 0.0, -0.2, 0.2, 0.02, "m") for axis in "xy"]
        rows.append(Parameter("friction", "friction", None, friction, 0.1, 1.5, 0.05))
    for kind, step in (("kp", 0.03), ("kd", 0.06)):
        if joint_gains:
            own = (Parameter(f"{kind} {n}", kind, i, 1.0, 0.4, 1.6, step) for i, n in enumerate(names))
            rows += own
        else:
            rows.append(Parameter(kind, kind, None, 1.0, 0.4, 1.6, step))
    rows += [Parameter(f"effort {n}", "effort", i, 1.0, 0.2, 1.3, 0.05) for i, n in enumerate(names)]
    return tuple(rows)


def plant_of(rows: tuple[Parameter, ...], values: Array, joints: int) -> tuple[PlantSpec, float]:
    """The plant and the delay, s, that values (P,) of these parameters mean."""
    single = {row.kind: float(value) for row, value in zip(rows, values, strict=True) if row.joint is None}
    factors = {kind: np.full(joints, single.get(kind, 1.0)) for kind in ("kp", "kd", "effort")}
    for row, value in zip(rows, values, strict=True):
        if row.joint is not None:
            factors[row.kind][row.joint] = value
    plant = PlantSpec(
        friction=single.get("friction"),
        mass=single.get("mass", 0.0),
        mass_offset=(single.get("mass_x", 0.0), single.get("mass_y", 0.0), 0.0),
        **{kind: tuple(value.tolist()) for kind, value in factors.items()},
    )
    return plant, single.get("delay", 0.0)
