"""Planning in latent space: sampling, gradient ascent and the policy prior behind one protocol."""

from tdmpc2_core.planning.gradient import GradientConfig, GradientPlanner, MPPIGradient
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.planners import PLANNER_PRESETS, PlannerConfig, make_planner, planner_preset
from tdmpc2_core.planning.policy import PolicyPlanner
from tdmpc2_core.planning.protocol import Plan, PlanBatch, PlanDraws, Planner, PlanRequest
from tdmpc2_core.planning.registry import PLANNERS

__all__ = [
    "PLANNERS",
    "GradientConfig",
    "GradientPlanner",
    "MPPI",
    "MPPIGradient",
    "PLANNER_PRESETS",
    "Plan",
    "PlanBatch",
    "PlanDraws",
    "PlanRequest",
    "Planner",
    "PlannerConfig",
    "PolicyPlanner",
    "make_planner",
    "planner_preset",
]
