"""Environments by name: the robots, and the benchmark tasks of the other files of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tdmpc2_core.config import closest
from tdmpc2_core.envs import dmcontrol, gymnasium
from tdmpc2_core.envs.protocol import Environment, EnvSpec
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv, robot_spec
from tdmpc2_core.errors import EXTRAS, UserError
from tdmpc2_core.robots.embodiment import Embodiment

MANISKILL = ("lift-cube", "pick-cube", "stack-cube", "pick-ycb", "turn-faucet")


@dataclass(frozen=True)
class Domain:
    """A family of tasks. module: of the package that it needs; "" where this suite cannot run it."""

    name: str
    tasks: tuple[str, ...]
    module: str

    @property
    def status(self) -> str:
        """Of its tasks on this machine: runnable, or what is missing."""
        if not self.module:
            return "not supported: ManiSkill2 needs NumPy 1.23 and a renderer, its last two tasks a download"
        if find_spec(self.module) is not None:
            return "runnable"
        extra = EXTRAS[self.module]
        return f"needs the extra '{extra}': pip install 'tdmpc2-core[{extra}]'"


DOMAINS = (
    Domain("DMControl", dmcontrol.TASKS + dmcontrol.CUSTOM, "dm_control"),
    Domain("Meta-World", gymnasium.METAWORLD, "metaworld"),
    Domain("MyoSuite", tuple(gymnasium.MYOSUITE), "myosuite"),
    Domain("ManiSkill", MANISKILL, ""),
)
"""The 104 tasks that TD-MPC2 was published on (Hansen et al., 2024, appendix C)."""

_TASKS = tuple(task for domain in DOMAINS for task in domain.tasks)


def known_task(name: str) -> str:
    """The name of a benchmark task or of an environment of Gymnasium, see `gymnasium`.

    Raises UserError when it is none, or one of a domain that this suite cannot run.
    """
    if ":" in name:
        return name
    if name not in _TASKS:
        raise UserError(
            f"no benchmark task {name!r}{closest(name, _TASKS)}; `tdmpc2 tasks` lists all, and gym:ID or "
            "MODULE:NAME is one of Gymnasium or your own"
        )
    domain = next(domain for domain in DOMAINS if name in domain.tasks)
    if not domain.module:
        raise UserError(f"task={name}: {domain.status}")
    return name


def make_env(task: str | Embodiment, seed: int = 0, options: EnvOptions | None = None) -> Environment:
    """An environment of a task.

    Args:
        task: a benchmark task of `DOMAINS`, ``gym:ID``, ``MODULE:NAME``, a shipped robot, an embodiment or
            the path of one.
        seed: of all its random numbers.
        options: what varies in a robot's environment; benchmark tasks have none.

    Raises:
        UserError: there is no such task, or the package that it comes from is not installed.
    """
    if isinstance(task, str) and _is_task(task):
        made = gymnasium.GymnasiumEnv if gymnasium.is_gymnasium(task) else dmcontrol.DMControlEnv
        return made(known_task(task), seed)
    return RobotEnv(_robot(task), seed, options)


def env_spec(task: str | Embodiment) -> EnvSpec:
    """Sizes and times of a task, named as for `make_env`. Raises as it does."""
    if isinstance(task, str) and _is_task(task):
        return make_env(task).spec
    return robot_spec(_robot(task))


def _is_task(name: str) -> bool:
    return name in _TASKS or (":" in name and not Path(name).exists())


def _robot(task: str | Embodiment) -> Embodiment:
    if isinstance(task, Embodiment):
        return task
    try:
        return Embodiment.load(task)
    except UserError as error:
        near = closest(task, _TASKS)
        if Path(task).exists() or not near:
            raise
        raise UserError(f"no task or robot {task!r}{near}") from error
