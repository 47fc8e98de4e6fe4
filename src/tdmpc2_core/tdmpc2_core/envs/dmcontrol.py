"""Tasks of the DeepMind Control Suite as TD-MPC2 trains on them (Tassa et al., 2018; Hansen et al., 2024).

A decision is held for two control steps and earns the sum of their rewards; an episode has 500 decisions, so
returns lie in [0, 1000]. The observation is the suite's entries in their order. Needs the extra `dmcontrol`.
"""

from __future__ import annotations

import os
from typing import Any

import mujoco  # noqa: F401  # before dm_control: its rendering back end follows MUJOCO_GL at the first import
import numpy as np

from tdmpc2_core.config import closest
from tdmpc2_core.envs.protocol import EnvSpec, StepResult
from tdmpc2_core.errors import UserError

ACTION_REPEAT = 2
EPISODE_LENGTH = 500  # decisions

TASKS = (
    *("acrobot-swingup", "cartpole-balance", "cartpole-balance-sparse", "cartpole-swingup"),
    *("cartpole-swingup-sparse", "cheetah-run", "cup-catch", "dog-run", "dog-stand", "dog-trot", "dog-walk"),
    *("finger-spin", "finger-turn-easy", "finger-turn-hard", "fish-swim", "hopper-hop", "hopper-stand"),
    *("humanoid-run", "humanoid-stand", "humanoid-walk", "pendulum-swingup", "quadruped-run"),
    *("quadruped-walk", "reacher-easy", "reacher-hard", "walker-run", "walker-stand", "walker-walk"),
)
"""The 28 stock tasks among the 39 that TD-MPC2 was published on, by its names."""

_DOMAINS = {"cup": "ball_in_cup"}


class DMControlEnv:
    """One task of the suite.

    Raises:
        UserError: the task is not one of `TASKS`, or dm_control is not installed.
    """

    def __init__(self, task: str, seed: int = 0) -> None:
        if task not in TASKS:
            raise UserError(f"no DMControl task {task!r}{closest(task, TASKS)}; accepted: {', '.join(TASKS)}")
        domain, name = task.replace("-", "_").split("_", 1)
        self._env = _suite(task).load(_DOMAINS.get(domain, domain), name, task_kwargs={"random": seed})
        bounds = self._env.action_spec()
        self._low, self._range = bounds.minimum, bounds.maximum - bounds.minimum
        entries = self._env.observation_spec().values()
        self.spec = EnvSpec(
            name=task,
            observation_dim=sum(int(np.prod(entry.shape)) for entry in entries),
            action_dim=int(bounds.shape[0]),
            episode_length=EPISODE_LENGTH,
            control_period=ACTION_REPEAT * self._env.control_timestep(),
            terminates=False,
        )
        self._steps = 0

    def reset(self) -> np.ndarray:
        """New episode; returns the first observation (O,) float32."""
        self._steps = 0
        return _flat(self._env.reset().observation)

    def step(self, action: np.ndarray) -> StepResult:
        """Hold `action` (A,), entries in [-1, 1], for two control steps; the reward is their sum."""
        scaled = self._low + 0.5 * (np.clip(action, -1.0, 1.0) + 1.0) * self._range
        reward = 0.0
        for _ in range(ACTION_REPEAT):
            outcome = self._env.step(scaled)
            reward += outcome.reward
        self._steps += 1
        return StepResult(_flat(outcome.observation), reward, False, self._steps >= EPISODE_LENGTH)


def _flat(observation: dict[str, Any]) -> np.ndarray:
    return np.concatenate([np.ravel(entry) for entry in observation.values()]).astype(np.float32)


def _suite(task: str) -> Any:
    """`dm_control.suite`, imported without a display: observations are states, nothing is rendered."""
    chosen = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = chosen or "disabled"
    try:
        from dm_control import suite
    except ImportError:
        raise UserError(f"{task}: needs dm_control; pip install 'tdmpc2-core[dmcontrol]'") from None
    finally:
        if chosen is None:
            del os.environ["MUJOCO_GL"]
    return suite
