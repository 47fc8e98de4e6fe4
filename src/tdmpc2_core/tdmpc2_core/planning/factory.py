"""`make_planner`: the planner that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from tdmpc2_core.planning.config import PlannerConfig
from tdmpc2_core.planning.gradient import GradientPlanner, MPPIGradient
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.policy import PolicyPlanner
from tdmpc2_core.planning.protocol import Planner
from tdmpc2_core.planning.rollout import Discount

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel


_PLANNERS: dict[str, Callable[[WorldModel, PlannerConfig, Discount, torch.Generator], Planner]] = {
    "mppi": MPPI,
    "policy": PolicyPlanner,
    "gradient": GradientPlanner,
    "mppi+gradient": MPPIGradient,
}


def make_planner(
    model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
) -> Planner:
    """The planner that `config.method` names. `generator` lies on the model's device."""
    return _PLANNERS[config.method](model, config, discount, generator)
