"""What a tick comes to, and what may change between ticks. No ROS in here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tdmpc2_core.planning import Plan

Array = NDArray[np.float64]

NO_GOAL = "no goal"
"""Why a robot with a pose command holds before it is given one."""

MODES = ("idle", "plan", "replay", "policy", "hold", "estop")


@dataclass
class DecisionOptions:
    """What may change while the robot moves."""

    deadline: float = 0.012  # s of search per tick
    evaluate: bool = True  # act without exploration noise
    task: int | None = None  # index in a multi-task model
    limits: tuple[float, float] = (0.0, 0.0)  # see `tdmpc2_core.planning.trust.TrustLimits`


class Decision(NamedTuple):
    """What a tick came to. `targets` (H, J), rad, are for 1, 2, ... H periods from now; None: send none."""

    targets: Array | None
    mode: str
    reason: str = ""
    ended_by: str = "hold"
    stamp: float = math.nan  # of the oldest sample used, s
    planning: float = math.nan  # s
    interventions: tuple[str, ...] = ()
    plan: Plan | None = None  # what is played, from its row `row` on
    row: int = 0
    observation: NDArray[np.float32] | None = None  # that `plan` was made for at this tick
    previous: NDArray[np.float32] | None = None  # (A,) action of the tick before, if that had an observation
