"""Planning in latent space: MPPI and the policy prior behind one protocol."""

from .config import PLANNER_PRESETS, PlannerConfig, planner_preset
from .factory import make_planner
from .mppi import MPPI
from .plan import Plan
from .policy import PolicyPlanner
from .protocol import PlanBatch, PlanDraws, Planner

__all__ = [
    "MPPI",
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
