"""Every kind of planner: one row each. Accepted names, help texts, calibration and docs come from here."""

from __future__ import annotations

from tdmpc2_core.planning.gradient import GradientPlanner, MPPIGradient
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.policy import PolicyPlanner
from tdmpc2_core.planning.protocol import Planner

PLANNERS: dict[str, type[Planner]] = {
    "mppi": MPPI,
    "policy": PolicyPlanner,
    "gradient": GradientPlanner,
    "mppi+gradient": MPPIGradient,
}
"""`PlannerConfig.method` -> class."""
