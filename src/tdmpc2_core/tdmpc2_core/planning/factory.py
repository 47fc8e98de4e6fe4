"""`make_planner`: the planner that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .config import PlannerConfig
from .mppi import MPPI
from .policy import PolicyPlanner
from .protocol import Planner

if TYPE_CHECKING:
    from ..model.world_model import WorldModel


def make_planner(
    model: WorldModel, config: PlannerConfig, discount: float, generator: torch.Generator
) -> Planner:
    """MPPI or the policy prior, as `config.method` says. `generator` lies on the model's device."""
    planner = PolicyPlanner if config.method == "policy" else MPPI
    return planner(model, config, discount, generator)
