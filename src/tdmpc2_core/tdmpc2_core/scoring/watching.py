"""Watching an agent in simulation: what it does in one environment, kept for a film or shown in a window."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.film import Recording, ground_fields
from tdmpc2_core.envs.robot.realtime import Viewer
from tdmpc2_core.errors import UserError
from tdmpc2_core.scoring.evaluation import acting
from tdmpc2_core.scoring.evaluation import play as play_environments

_PICTURE_AT = 0.6  # share of the recording


class Progress:
    """A `Spectator` with a bar on stderr, where that is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, step: int, steps: int, environments: Sequence[Any]) -> None:
        """One step further."""
        if self._bar is None:
            quiet = not sys.stderr.isatty()
            self._bar = tqdm(total=steps, desc="eval", unit="step", leave=False, disable=quiet)
        self._bar.update()
        if step == steps:
            self._bar.close()


class Recorder:
    """A `Spectator` that keeps the motion of the first robot."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._env: RobotEnv | None = None

    def __call__(self, step: int, steps: int, environments: Sequence[Any]) -> None:
        """Keep pose, joints and command of the first."""
        env: RobotEnv = environments[0]
        simulation, self._env = env.simulation, env
        row = (*simulation.base_pose(), simulation.joint_position())
        self._rows.append((step * env.embodiment.control_period, *row, env.command.copy()))

    def recording(self) -> Recording:
        """What was seen so far. Raises UserError where that is nothing."""
        if self._env is None:
            raise UserError("nothing was recorded: the episode had no step")
        embodiment, terrain = self._env.embodiment, self._env.simulation.terrain
        times, position, orientation, joints, commands = map(np.array, zip(*self._rows, strict=True))
        return Recording(
            robot=str(embodiment.directory),
            time=times,
            position=position,
            orientation=orientation,
            joints=joints,
            goals=commands if embodiment.pose_command else np.zeros((0, 7)),
            picture_time=float(_PICTURE_AT * times[-1]),
            **ground_fields(terrain.state() if terrain else None),
        )


def robot_of(agent: Agent, seed: int, command: Sequence[float] = ()) -> RobotEnv:
    """The agent's robot in simulation; under this command, or drawn ones where it is empty.

    Raises:
        UserError: the agent is of a benchmark task, or the command does not fit the robot.
    """
    embodiment = agent.embodiment
    if embodiment is None:
        raise UserError(f"films and windows are of robots; this bundle is of {', '.join(agent.tasks)}")
    env = RobotEnv(embodiment, seed, EnvOptions(randomise=False, random_reset=False))
    if command:
        names = [term.name for term in embodiment.twist_command.terms] if embodiment.twist_command else []
        if len(command) != len(names):
            wanted = f"{len(names)} numbers ({', '.join(names)})" if names else "no --command"
            raise UserError(f"--command has {len(command)} numbers; {embodiment.name} takes {wanted}")
        env.set_command(np.array(command))
    return env


def watch_film(agent: Agent, env: RobotEnv, seconds: float) -> Recording:
    """The robot for so many seconds, or until it falls."""
    recorder, progress = Recorder(), Progress()

    def both(step: int, steps: int, environments: Sequence[Any]) -> None:
        recorder(step, steps, environments)
        progress(step, steps, environments)

    steps = max(1, round(seconds / env.embodiment.control_period))
    play_environments(acting(agent), [env], steps, spectator=both)
    return recorder.recording()


def watch_window(agent: Agent, env: RobotEnv, seconds: float | None) -> bool:
    """Show the robot in real time until the window is closed or the time is over; it starts again after a
    fall. False where no window can be opened."""
    viewer = Viewer(env.simulation, threading.Lock(), lambda _: None)
    if not viewer.open:
        return False
    act, period = acting(agent), env.embodiment.control_period
    observation, first = env.reset(), True
    begin = due = time.monotonic()
    try:
        while viewer.open and (seconds is None or due - begin < seconds):
            action = act([env], observation[None], np.array([first]))[0]
            result = env.step(action)
            observation, first = result.observation, result.terminated or result.truncated
            if first:
                observation = env.reset()
            viewer.update(time.monotonic())
            due = max(due + period, time.monotonic() - period)
            time.sleep(max(0.0, due - time.monotonic()))
    finally:
        viewer.close()
    return True
