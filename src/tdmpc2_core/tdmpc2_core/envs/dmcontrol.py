"""Tasks of the DeepMind Control Suite as TD-MPC2 trains on them (Tassa et al., 2018; Hansen et al., 2024).

A decision is held for two control steps and earns the sum of their rewards; an episode has 500 decisions, so
returns lie in [0, 1000]. The observation is the suite's entries in their order. Needs the extra `dmcontrol`.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import mujoco  # before dm_control: its rendering back end follows MUJOCO_GL at the first import
import numpy as np

from tdmpc2_core.envs.protocol import EnvSpec, StepResult
from tdmpc2_core.errors import missing_extra

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

CUSTOM = (
    *("walker-walk-backwards", "walker-run-backwards", "cheetah-run-backwards", "cheetah-run-front"),
    *("cheetah-run-back", "cheetah-jump", "hopper-hop-backwards", "reacher-three-easy", "reacher-three-hard"),
    *("cup-spin", "pendulum-spin"),
)
"""The 11 others of the 39, on the stock domains; see `dmcontrol_custom`."""


_EPISODE = ("_step_count", "_reset_next_step")  # of dm_control's environment
_DOMAINS = {"cup": "ball_in_cup"}


_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION.value
_DRAWN = (
    "site_pos",
    "site_size",
    "geom_pos",
    "geom_size",
    "dof_damping",
    "light_pos",
    "geom_rgba",
    "site_rgba",
)
"""What tasks change in a model when an episode begins, such as the place of a target."""


@dataclass(frozen=True)
class DMControlState:
    """A `DMControlEnv` at one instant; it can be kept, pickled and restored repeatedly."""

    name: str
    physics: np.ndarray  # MuJoCo's mjSTATE_INTEGRATION
    model: dict[str, np.ndarray]
    task: dict[str, Any]  # attributes of the suite's task, its generator among them
    episode: dict[str, Any]


class DMControlEnv:
    """One task of the suite, of `TASKS` or `CUSTOM`. Raises UserError when dm_control is not installed."""

    def __init__(self, task: str, seed: int = 0) -> None:
        self._env = _load(task, seed)
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

    def state(self) -> DMControlState:
        """Everything that the decisions to come depend on; later ones do not change it."""
        model, data = self._env.physics.model, self._env.physics.data
        physics = np.empty(mujoco.mj_stateSize(model.ptr, _PHYSICS))
        mujoco.mj_getState(model.ptr, data.ptr, physics, _PHYSICS)
        return DMControlState(
            name=self.spec.name,
            physics=physics,
            model={name: getattr(model, name).copy() for name in _DRAWN},
            task=copy.deepcopy(vars(self._env.task)),
            episode={"steps": self._steps, **{name: getattr(self._env, name) for name in _EPISODE}},
        )

    def restore(self, state: DMControlState) -> None:
        """Continue from a state of this or another environment of the task, bit for bit, also repeatedly.

        Raises ValueError for a state of another task.
        """
        if state.name != self.spec.name:
            raise ValueError(f"a state of {state.name!r} does not fit {self.spec.name!r}")
        model, data = self._env.physics.model, self._env.physics.data
        for name, values in state.model.items():
            getattr(model, name)[:] = values
        mujoco.mj_setState(model.ptr, data.ptr, state.physics, _PHYSICS)
        mujoco.mj_step1(
            model.ptr, data.ptr
        )  # the suite steps from the middle of a physics step to the next one's
        vars(self._env.task).update(copy.deepcopy(state.task))
        episode = dict(state.episode)
        self._steps = episode.pop("steps")
        vars(self._env).update(episode)

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


def _load(task: str, seed: int) -> Any:
    """The suite's environment, imported without a display: observations are states, nothing is rendered."""
    chosen = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = chosen or "disabled"
    try:
        from dm_control import suite

        if task in CUSTOM:
            from tdmpc2_core.envs import dmcontrol_custom

            return dmcontrol_custom.load(task, seed)
    except ImportError:
        raise missing_extra(task, "dm_control") from None
    finally:
        if chosen is None:
            del os.environ["MUJOCO_GL"]
    domain, name = task.replace("-", "_").split("_", 1)
    return suite.load(_DOMAINS.get(domain, domain), name, task_kwargs={"random": seed})
