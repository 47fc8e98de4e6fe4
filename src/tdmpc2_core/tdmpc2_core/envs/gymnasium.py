"""Environments of Gymnasium: Meta-World, MyoSuite, any registered id, and classes of one's own.

A task is a name of `METAWORLD` or `MYOSUITE`, ``gym:ID`` such as ``gym:Pendulum-v1``, or ``MODULE:NAME`` of a
class or function that makes a `gymnasium.Env`, found as Python finds modules or in the working folder.
Needs the extra `gymnasium`, `metaworld` or `myosuite`.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdmpc2_core.envs.protocol import EnvSpec, StepResult
from tdmpc2_core.errors import EXTRAS, UserError, missing_extra

_METAWORLD_50 = (
    "assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall "
    "coffee-button coffee-pull coffee-push dial-turn disassemble door-open door-close drawer-close "
    "drawer-open faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side "
    "handle-pull lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall "
    "plate-slide plate-slide-side plate-slide-back plate-slide-back-side push-back push push-wall reach "
    "reach-wall shelf-place soccer stick-push stick-pull sweep-into sweep window-open window-close "
    "bin-picking box-close door-lock door-unlock hand-insert"
)

METAWORLD = tuple(f"mw-{name}" for name in _METAWORLD_50.split())
"""The 50 tasks of Meta-World (Yu et al., 2019), by TD-MPC2's names and in the order of its mt80."""

MYOSUITE: dict[str, str] = {
    f"myo-{name}{end}": f"myoHand{hand}{kind}-v0"
    for name, hand in {
        "reach": "Reach",
        "pose": "Pose",
        "obj-hold": "ObjHold",
        "key-turn": "KeyTurn",
        "pen-twirl": "PenTwirl",
    }.items()
    for end, kind in (("", "Fixed"), ("-hard", "Random"))
}
"""The 10 tasks of MyoSuite (Caggiano et al., 2022), by TD-MPC2's names, and their ids."""

_LENGTH = 1000  # decisions of an episode, where an environment names no limit


@dataclass(frozen=True)
class Protocol:
    """How a domain is trained and scored.

    Attributes:
        repeat: steps of the environment that a decision is held; their rewards are summed.
        length: decisions of an episode; None takes the limit of the environment.
        success: entry of `info` that says whether the task is done at this moment; "" where there is none.
        terminates: whether the environment's own ends count; time always ends an episode.
    """

    repeat: int = 1
    length: int | None = None
    success: str = ""
    terminates: bool = True


_METAWORLD = Protocol(repeat=2, length=100, success="success", terminates=False)
_MYOSUITE = Protocol(length=100, success="solved", terminates=False)


class GymnasiumEnv:
    """One environment. Actions in [-1, 1] are stretched to the bounds of its box; dictionaries and tuples of
    observations are laid out in one vector as `gymnasium.spaces.flatten` does.

    Raises:
        UserError: there is no such environment, its package is not installed, its actions are not a bounded
            box, or its observations have no fixed length.
    """

    def __init__(self, task: str, seed: int = 0) -> None:
        with warnings.catch_warnings():  # of bounds and render modes that do not matter here
            warnings.simplefilter("ignore")
            self._env, self._protocol = _make(task, seed)
        self._spaces = _package(task, "gymnasium").spaces
        self._observations = self._env.observation_space
        box = self._env.action_space
        if not isinstance(box, self._spaces.Box) or not box.is_bounded():
            raise UserError(f"{task}: its actions are {box}; planning needs a Box with finite bounds")
        if not self._observations.is_np_flattenable:
            raise UserError(
                f"{task}: its observations are {self._observations}, of no fixed length; give it "
                "a Box or a Dict of them"
            )
        self._low = box.low.astype(np.float64)
        self._range = box.high.astype(np.float64) - self._low
        self._dtype = box.dtype
        self.spec = self._sizes(task)
        self._seed: int | None = seed  # of the first episode; the environment's generator goes on from there
        self._steps = 0

    def _sizes(self, task: str) -> EnvSpec:
        spec, protocol = self._env.spec, self._protocol
        own = spec.max_episode_steps if spec else getattr(self._env.unwrapped, "max_episode_steps", None)
        limit = protocol.length or own or _LENGTH
        return EnvSpec(
            name=task,
            observation_dim=int(self._spaces.flatdim(self._observations)),
            action_dim=int(np.prod(self._low.shape)),
            episode_length=int(limit),
            control_period=protocol.repeat * _period(self._env),
            terminates=protocol.terminates,
        )

    def state(self) -> Any:
        """Raises UserError: Gymnasium's environments have no common way to be saved."""
        raise UserError(f"{self.spec.name}: its state cannot be saved; that of robots and DMControl can")

    def restore(self, state: Any) -> None:
        """Raises UserError, as `state` does."""
        self.state()

    def reset(self) -> np.ndarray:
        """New episode; returns the first observation (O,) float32."""
        observation, _ = self._env.reset(seed=self._seed)
        self._seed, self._steps = None, 0
        return self._flat(observation)

    def step(self, action: np.ndarray) -> StepResult:
        """Apply `action` (A,), entries in [-1, 1], for one decision.

        ``info["success"]`` is 1 or 0 where the domain tells success.
        """
        share = 0.5 * (np.clip(np.asarray(action, np.float64), -1.0, 1.0) + 1.0).reshape(self._low.shape)
        scaled = (self._low + share * self._range).astype(self._dtype)
        reward, protocol = 0.0, self._protocol
        for _ in range(protocol.repeat):
            observation, earned, ended, cut, info = self._env.step(scaled)
            reward += float(earned)
            if protocol.terminates and (ended or cut):
                break
        self._steps += 1
        terminated = bool(ended) and protocol.terminates
        over = self._steps >= self.spec.episode_length or (bool(cut) and protocol.terminates)
        told = {"success": float(info[protocol.success])} if protocol.success in info else {}
        return StepResult(self._flat(observation), reward, terminated, over and not terminated, told)

    def _flat(self, observation: Any) -> np.ndarray:
        return self._spaces.flatten(self._observations, observation).astype(np.float32)


def names_code(task: str) -> bool:
    """Whether a task is a MODULE:NAME or an id with a module, for which code of that module is run."""
    return ":" in task.removeprefix("gym:")


def is_gymnasium(task: str) -> bool:
    """Whether a task is of this file."""
    return task in METAWORLD or task in MYOSUITE or ":" in task


def _package(task: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in EXTRAS:
            raise
        raise missing_extra(task, module) from None


def _make(task: str, seed: int) -> tuple[Any, Protocol]:
    """The environment and how it is used. Raises as `GymnasiumEnv` does."""
    gymnasium = _package(task, "gymnasium")
    if task in METAWORLD:
        return _metaworld(task, seed), _METAWORLD
    if task in MYOSUITE:
        with redirect_stdout(io.StringIO()):  # its banner
            _package(task, "myosuite")
            return gymnasium.make(MYOSUITE[task], disable_env_checker=True).unwrapped, _MYOSUITE
    source, _, name = task.partition(":")
    if source == "gym":
        try:
            return gymnasium.make(name, disable_env_checker=True), Protocol()
        except (gymnasium.error.Error, ImportError) as problem:
            said = " ".join(str(problem).split())
            raise UserError(f"task={task}: Gymnasium cannot make {name!r}: {said}") from None
    env = _entry_point(task)()
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"task={task}: makes a {type(env).__name__}, which is no gymnasium.Env")
    return env, Protocol()


def _metaworld(task: str, seed: int) -> Any:
    """The task's own environment, which draws a goal and places anew at every reset; the goal is observed."""
    classes = _package(task, "metaworld").env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    env = classes[f"{task.removeprefix('mw-')}-v3-goal-observable"](seed=seed)
    env._freeze_rand_vec = False
    return env


def _entry_point(task: str) -> Callable[[], Any]:
    module, _, name = task.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # the console script does not look in the working folder
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise UserError(
            f"task={task}: {problem}; give MODULE:NAME of a class or function that makes a gymnasium.Env"
        ) from None
    if not callable(found):
        raise UserError(f"task={task}: {name} is a {type(found).__name__}; a class or function is needed")
    return found


def _period(env: Any) -> float:
    """s between steps: of MuJoCo environments the true one, of others that of their frames, or 0.02."""
    period = getattr(env.unwrapped, "dt", None)
    if isinstance(period, int | float) and period > 0:
        return float(period)
    rate = env.unwrapped.metadata.get("render_fps")
    return 1.0 / rate if isinstance(rate, int | float) and rate > 0 else 0.02
