"""Environments by name: the robots, and the benchmark tasks of the other files of this folder."""

from __future__ import annotations

from pathlib import Path

from tdmpc2_core.config import closest
from tdmpc2_core.envs import dmcontrol
from tdmpc2_core.envs.protocol import Environment, EnvSpec
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv, robot_spec
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment


def make_env(task: str | Embodiment, seed: int = 0, options: EnvOptions | None = None) -> Environment:
    """An environment of a task.

    Args:
        task: a benchmark task (`dmcontrol.TASKS`), a shipped robot, an embodiment or the path of one.
        seed: of all its random numbers.
        options: what varies in a robot's environment; benchmark tasks have none.

    Raises:
        UserError: there is no such task, or the package that it comes from is not installed.
    """
    if isinstance(task, str) and task in dmcontrol.TASKS:
        return dmcontrol.DMControlEnv(task, seed)
    return RobotEnv(_robot(task), seed, options)


def env_spec(task: str | Embodiment) -> EnvSpec:
    """Sizes and times of a task, named as for `make_env`. Raises as it does."""
    if isinstance(task, str) and task in dmcontrol.TASKS:
        return dmcontrol.DMControlEnv(task).spec
    return robot_spec(_robot(task))


def _robot(task: str | Embodiment) -> Embodiment:
    if isinstance(task, Embodiment):
        return task
    try:
        return Embodiment.load(task)
    except UserError as error:
        near = closest(task, dmcontrol.TASKS)
        if Path(task).exists() or not near:
            raise
        raise UserError(f"no task or robot {task!r}{near}") from error
