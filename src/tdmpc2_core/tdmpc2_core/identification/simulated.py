"""Recorded motion of a simulated robot, with the raw arrays that a bag of a real one gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.episodes import EpisodeRecorder, EpisodeStore
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import EnvOptions
from tdmpc2_core.envs.robot.randomisation import SensorNoise
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import gravity_direction

Act = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]


def record(
    store: Path,
    robot: Embodiment,
    act: Act,
    episodes: int,
    seconds: float,
    seed: int = 0,
    change: Callable[[Simulation], None] = lambda simulation: None,
) -> None:
    """Write episodes of one machine under a policy, with sensor noise; one that falls ends there.

    Args:
        store: folder of the episodes.
        robot: nothing is randomised; its delay is the mean of its range.
        act: actions (N, A) of observations (N, O); flags (N,) tell which episodes begin.
        episodes: N, side by side.
        seconds: length of each.
        seed: of commands and noise.
        change: makes the simulated machine another one.
    """
    env = BatchEnv(robot, episodes, seed, EnvOptions(randomise=False))
    noise = SensorNoise(robot, np.random.default_rng(seed))
    observed, first = env.reset(), np.ones(episodes, dtype=bool)
    for one in env.robots:
        change(one.simulation)
    recorders = [EpisodeRecorder(row) for row in observed]
    raw: list[dict[str, list[NDArray[np.float64]]]] = [{} for _ in range(episodes)]
    alive = np.ones(episodes, dtype=bool)
    _sense(env, noise, raw, alive)
    for _ in range(round(seconds * robot.control_rate)):
        action = act(observed, first)
        result = env.step(action)
        observed, first = result.observation, result.terminated | result.truncated
        alive &= ~first
        for row in np.flatnonzero(alive):
            raw[row].setdefault("target", []).append(env.targets[row].copy())
            recorders[row].add(observed[row], action[row], float(result.reward[row]), False)
        _sense(env, noise, raw, alive)
    episode_store = EpisodeStore(store)
    for recorder, arrays in zip(recorders, raw, strict=True):
        if len(recorder):
            episode = recorder.episode(truncated=True)
            episode.raw = {name: np.array(values) for name, values in arrays.items()}
            episode_store.append(episode, source="simulation")


def _sense(
    env: BatchEnv,
    noise: SensorNoise,
    raw: list[dict[str, list[NDArray[np.float64]]]],
    rows: NDArray[np.bool_],
) -> None:
    """Append what the sensors of these robots report now."""
    fleet = env.fleet
    joints = noise.add("joints", fleet.read("joints"))
    values = {"joint_position": joints["position"], "joint_velocity": joints["velocity"], "stamp": fleet.time}
    if "imu" in fleet.sources:  # of the base itself, of which its frame is a fixed turn
        orientation, (_, rates) = fleet.base_pose()[1], fleet.base_velocity()
        imu = noise.add("imu", {"orientation": orientation, "angular_velocity": rates})
        values |= {"gyro": imu["angular_velocity"], "gravity": gravity_direction(imu["orientation"])}
    for row in np.flatnonzero(rows):
        for name, value in values.items():
            raw[row].setdefault(name, []).append(np.array(value[row]))
