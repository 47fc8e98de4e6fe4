"""Agents and bundles of random weights for the shipped robots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tdmpc2_core.agent import Agent
from tdmpc2_core.model.architecture import world_model_config
from tdmpc2_core.model.world_model import WorldModel
from tdmpc2_core.planning import PlannerConfig, planner_preset
from tdmpc2_core.robots import Embodiment

ROBOT = Embodiment.load("quadruped")
QUICK = replace(planner_preset("tiny"), num_samples=32, num_elites=4, num_pi_trajs=8, iterations=1)
"""A search that fits the node's deadline on slow cores too."""


def random_agent(
    robot: Embodiment = ROBOT,
    planner: PlannerConfig | str = QUICK,
    tasks: tuple[str, ...] = (),
    seed: int = 0,
) -> Agent:
    """An untrained agent for `robot`; with `tasks` one whose model knows several."""
    sizes = (robot.observation_dim, robot.action_dim)
    extra: dict = {"action_dims": (robot.action_dim,) * len(tasks), "task_dim": 8} if tasks else {}
    config = world_model_config("robot", *sizes, normalise_obs=True, episodic=not tasks, **extra)
    model = WorldModel(config, torch.Generator().manual_seed(seed))
    return Agent(model, planner, embodiment=robot, tasks=tasks)


def random_bundle(folder: Path, robot: Embodiment = ROBOT, tasks: tuple[str, ...] = (), seed: int = 0) -> str:
    """Path of a bundle of such an agent."""
    path = folder / f"bundle_{robot.name}_{len(tasks)}_{seed}"
    random_agent(robot, tasks=tasks, seed=seed).save(path)
    return str(path)
