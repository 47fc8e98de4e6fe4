"""Planning in latent space: sampling, gradient ascent and the policy prior behind one protocol."""

from tdmpc2_core.planning.config import PLANNER_PRESETS, PlannerConfig, planner_preset
from tdmpc2_core.planning.factory import make_planner
from tdmpc2_core.planning.gradient import GradientPlanner, MPPIGradient
from tdmpc2_core.planning.gradient_config import GradientConfig
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.plan import Plan
from tdmpc2_core.planning.policy import PolicyPlanner
from tdmpc2_core.planning.protocol import PlanBatch, PlanDraws, Planner

__all__ = [
    "GradientConfig",
    "GradientPlanner",
    "MPPI",
    "MPPIGradient",
    "PLANNER_PRESETS",
    "Plan",
    "PlanBatch",
    "PlanDraws",
    "Planner",
    "PlannerConfig",
    "PolicyPlanner",
    "make_planner",
    "planner_preset",
]
