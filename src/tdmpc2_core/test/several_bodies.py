"""An untrained agent of two robots whose networks, embeddings and statistics all matter."""

from __future__ import annotations

from pathlib import Path

import torch

from tdmpc2_core.agent import Agent
from tdmpc2_core.model.architecture import world_model_config
from tdmpc2_core.model.world_model import WorldModel
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment

BODIES = Embodiment.load("quadruped"), Embodiment.load("arm")


def agent_of_bodies(planner: PlannerConfig | str = "policy", **changes: object) -> Agent:
    """Weights are drawn; statistics are those of noise on another scale for each robot."""
    observations, actions = (tuple(getattr(r, n) for r in BODIES) for n in ("observation_dim", "action_dim"))
    settings = {"task_dim": 8, "action_dims": actions, "obs_dims": observations, "normalise_obs": True}
    config = world_model_config("tiny", max(observations), max(actions), **(settings | changes))
    draw = torch.Generator().manual_seed(0)
    model = WorldModel(config, draw)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    for task, robot in enumerate(BODIES):
        seen = torch.zeros(50, 4, config.obs_dim)
        seen[..., : robot.observation_dim] = 3.0 + task * torch.randn(
            50, 4, robot.observation_dim, generator=draw
        )
        model.normaliser.update(seen, torch.full((4,), task))
    names = tuple(robot.name for robot in BODIES)
    return Agent(model.eval(), planner, tasks=names, task_discounts=(0.97, 0.9), bodies=BODIES)


def bundle_of_bodies(folder: Path) -> Path:
    """Path of a bundle of such an agent."""
    agent_of_bodies().save(folder / "several")
    return folder / "several"
