"""`make_planner`: the planner that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tdmpc2_core.planning.config import PlannerConfig
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.policy import PolicyPlanner
from tdmpc2_core.planning.protocol import Planner
from tdmpc2_core.planning.rollout import Discount

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel


def make_planner(
    model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
) -> Planner:
    """MPPI or the policy prior, as `config.method` says. `generator` lies on the model's device."""
    planner = PolicyPlanner if config.method == "policy" else MPPI
    return planner(model, config, discount, generator)
