"""Evaluation on a fixed course of commands: returns, tracking errors and falls, comparable between runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.scoring.reaching import ReachEvaluation, evaluate_reach


@dataclass(frozen=True)
class Evaluation:
    """Means over the evaluation episodes."""

    return_per_step: float
    velocity_error: float  # m/s, horizontal, mean over steps
    yaw_rate_error: float  # rad/s
    distance_ratio: float  # distance travelled along the commanded direction / distance commanded
    falls: int
    episodes: int


def course(embodiment: Embodiment, episodes: int) -> list[np.ndarray]:
    """Commands (C,) for ``episodes`` episodes: half a metre per second, stand, turns, backwards, sideways.

    Each is inside the robot's range; they are empty for a robot that takes none.
    """
    terms = embodiment.twist_command.terms if embodiment.twist_command else ()
    wanted: list[dict[str, float]] = [
        {"linear_x": 0.5},
        {},
        {"linear_x": 0.5, "angular_z": 0.5},
        {"angular_z": -0.8},
        {"linear_x": -0.3},
        {"linear_y": 0.25},
        {"linear_x": 0.8},
        {"linear_x": 0.5},
    ]
    commands = []
    for index in range(episodes):
        values = wanted[index % len(wanted)]
        commands.append(np.array([np.clip(values.get(t.name, 0.0), t.lower, t.upper) for t in terms]))
    return commands


def evaluate(
    agent: Agent,
    embodiment: Embodiment,
    seconds: float,
    episodes: int = 8,
    seed: int = 0,
    randomise: bool = True,
) -> Evaluation | ReachEvaluation:
    """Run ``episodes`` robots side by side, each with one command of the course; no exploration noise.

    A robot with a pose command is sent to random goals instead, one after the other.
    """
    if embodiment.pose_command:
        return evaluate_reach(agent, embodiment, seconds, episodes, seed, randomise)
    options = EnvOptions(sensor_noise=True, randomise=randomise, random_reset=True)
    environments = [RobotEnv(embodiment, seed + index, options) for index in range(episodes)]
    commands = course(embodiment, episodes)
    for env, command in zip(environments, commands, strict=True):
        env.set_command(command)
    observations = np.stack([env.reset() for env in environments])
    first = np.ones(episodes, dtype=bool)
    alive = np.ones(episodes, dtype=bool)
    rewards, errors, yaw_errors, travelled, commanded = [], [], [], 0.0, 0.0
    settle = round(1.0 * embodiment.control_rate)
    period = embodiment.control_period
    agent.reset()
    for step in range(round(seconds * embodiment.control_rate)):
        actions = agent.act(observations, first, evaluate=True).action
        first[:] = False
        for index in np.flatnonzero(alive):
            env = environments[index]
            result = env.step(actions[index])
            observations[index] = result.observation
            rewards.append(result.reward)
            alive[index] = not result.terminated
            if step < settle or embodiment.twist_command is None:
                continue
            linear, angular = env.simulation.base_velocity()
            wanted = embodiment.twist_command.velocity(commands[index])
            speed = float(np.linalg.norm(wanted[:2]))
            errors.append(result.info["velocity_error"])
            yaw_errors.append(abs(angular[2] - wanted[2]))
            if speed > 0.0:
                travelled += float(linear[:2] @ wanted[:2]) / speed * period
                commanded += speed * period
    return Evaluation(
        return_per_step=float(np.sum(rewards)) / (episodes * round(seconds * embodiment.control_rate)),
        velocity_error=float(np.mean(errors)) if errors else float("nan"),
        yaw_rate_error=float(np.mean(yaw_errors)) if yaw_errors else float("nan"),
        distance_ratio=travelled / commanded if commanded else float("nan"),
        falls=int((~alive).sum()),
        episodes=episodes,
    )
