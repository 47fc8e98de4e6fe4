"""Simulated machines that differ from their model, and their motion with the raw arrays that a bag gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import closest
from tdmpc2_core.data.episodes import EpisodeRecorder, EpisodeStore
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import EnvOptions
from tdmpc2_core.envs.robot.randomisation import SensorNoise
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import gravity_direction

Act = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]

_WEAK = 1  # the joint whose motor is weak


class Machine(NamedTuple):
    """A robot like any of its kind but for `truth`: true values by the names of `parameters`."""

    embodiment: Embodiment
    truth: dict[str, float]


def machine(robot: Embodiment, change: str | None = None) -> Machine:
    """One machine, of which nothing is drawn but starts, commands, pushes and noise; changed as a row says.

    Raises:
        UserError: there is no such change.
    """
    delay = 0.5 * sum(robot.randomisation.delay)
    content = robot.to_dict()
    ranges = content["randomisation"]
    for name in ("curriculum", "friction", "base_mass", "gain", "payload", "weak_joint"):
        ranges.pop(name, None)
    if change is not None and change not in MACHINES:
        raise UserError(f"no change {change!r}{closest(change, MACHINES)}; accepted: {', '.join(MACHINES)}")
    plant, truth = ({}, {}) if change is None else MACHINES[change](robot)
    if "delay" in truth:
        delay = truth["delay"]
    ranges["delay"] = [delay, delay]
    content["plant"] = plant
    return Machine(Embodiment.from_dict(content, directory=robot.directory), truth)


def _loaded(robot: Embodiment) -> tuple[dict[str, Any], dict[str, float]]:
    truth = {"mass": 3.0, "mass_x": 0.06, "mass_y": -0.08}
    return {"mass": 3.0, "mass_offset": [0.06, -0.08, 0.0]}, truth


def _weak(robot: Embodiment) -> tuple[dict[str, Any], dict[str, float]]:
    factors = [0.5 if joint == _WEAK else 1.0 for joint in range(robot.num_joints)]
    return {"effort": factors}, {f"effort {robot.joint_names[_WEAK]}": 0.5}


def _soft(robot: Embodiment) -> tuple[dict[str, Any], dict[str, float]]:
    factors = [0.8] * robot.num_joints
    return {"kp": factors, "kd": factors}, {"kp": 0.8, "kd": 0.8}


MACHINES: dict[str, Callable[[Embodiment], tuple[dict[str, Any], dict[str, float]]]] = {
    "payload": _loaded,
    "friction": lambda robot: ({"friction": 0.3}, {"friction": 0.3}),
    "delay": lambda robot: ({}, {"delay": 0.5 * sum(robot.randomisation.delay) + 0.02}),
    "weak joint": _weak,
    "gains": _soft,
}
"""Changed machines by name: section plant, and the true values. Payload 3 kg off centre, friction 0.3, 20 ms
more delay, a motor at half torque, drives at 0.8 of their gains."""


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
