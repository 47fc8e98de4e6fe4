"""How a legged robot stands, takes pushes and follows slow commands: its bundle, or its scripted controller.

A push is a horizontal force on a body for a time, in a random direction, at a random instant of the second
second. Sensor noise, random starts and randomised friction, mass, gains and delay are on; the
randomisation's own pushes are off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from common import parser, print_table, save
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.branches import steady
from tdmpc2_core.teachers.demonstrator import Demonstrator

Act = Callable[[list[RobotEnv], np.ndarray, np.ndarray], np.ndarray]


def planned(
    agent: Agent, _environments: list[RobotEnv], observations: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Actions (N, A) of the bundle."""
    return agent.act(observations, first, evaluate=True).action


def scripted(
    teachers: list[Demonstrator], environments: list[RobotEnv], _observations: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Actions (N, A) of the scripted controller, which reads the true state."""
    for teacher in teachers:
        if first.all():
            teacher.reset()
    pairs = zip(teachers, environments, strict=True)
    return np.array([teacher.action(env) for teacher, env in pairs])


def trial(
    act: Act, embodiment: Embodiment, count: int, command: dict[str, float], seconds: float, seed: int,
    force: float = 0.0, duration: float = 0.1, body: str = "",
) -> dict[str, float | int | str]:  # fmt: skip
    """One row: ``count`` robots under one command, each pushed once where ``force`` (N) is not zero."""
    rng = np.random.default_rng(seed)
    environments = [RobotEnv(embodiment, seed + index) for index in range(count)]
    names = embodiment.command.names if embodiment.command else ()
    wanted = np.array([command.get(name, 0.0) for name in names])
    for env in environments:
        env.set_command(wanted)
    angles, starts = rng.uniform(0.0, 2.0 * np.pi, count), rng.uniform(1.0, 2.0, count)
    observations = np.stack([env.reset() for env in environments])
    first, alive = np.ones(count, dtype=bool), np.ones(count, dtype=bool)
    velocities: list[np.ndarray] = []
    for step in range(round(seconds * embodiment.control_rate)):
        actions = act(environments, observations, first)
        first[:] = False
        time = step * embodiment.control_period
        for index in np.flatnonzero(alive):
            env = environments[index]
            if force:
                on = starts[index] <= time < starts[index] + duration
                push = on * force * np.array([np.cos(angles[index]), np.sin(angles[index]), 0.0])
                env.simulation.set_force(body, push)
            result = env.step(actions[index])
            observations[index], alive[index] = result.observation, not result.terminated
            if time >= 1.0:
                linear, angular = env.simulation.base_velocity()
                velocities.append(np.array([linear[0], linear[1], angular[2]]))
    mean = np.mean(velocities, axis=0)
    return {
        "stayed up": f"{int(alive.sum())}/{count}",
        "seconds": seconds,
        "forward m/s": float(mean[0]),
        "lateral m/s": float(mean[1]),
        "yaw rad/s": float(mean[2]),
    }


def main() -> int:
    """Print the table; write pushes.json."""
    options = parser(__doc__ or "", "python benchmarks/pushes.py --robots 32")
    options.add_argument("--bundle", default="humanoid", help="bundle folder or a shipped robot")
    options.add_argument("--scripted", action="store_true", help="the scripted controller instead")
    options.add_argument("--robots", type=int, default=32, help="robots, each pushed in a random direction")
    options.add_argument("--seconds", type=float, default=6.0, help="length of a trial")
    options.add_argument("--force", type=float, nargs="*", default=[50.0, 100.0, 150.0], help="N")
    options.add_argument("--duration", type=float, default=0.1, help="s")
    options.add_argument("--body", default="torso_link", help="body that is pushed")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--name", default="pushes", help="name of the JSON file")
    args = options.parse_args()
    torch.set_num_threads(1)
    if args.scripted:
        embodiment = steady(Embodiment.load(args.bundle), hold=False)
        act: Act = partial(scripted, [Demonstrator(embodiment) for _ in range(args.robots)])
    else:
        agent = Agent.load(args.bundle)
        embodiment, act = steady(agent.embodiment, hold=False), partial(planned, agent)
    slow = {"step in place": {"linear_x": 0.03}, "walk": {"linear_x": 0.3}, "walk back": {"linear_x": -0.15}}
    slow |= {"walk sideways": {"linear_y": 0.1}, "turn": {"angular_z": 0.4}}
    tests = [("stand", {}, 0.0), *((f"stand, {force:g} N", {}, force) for force in args.force)]
    tests += [(name, command, 0.0) for name, command in slow.items()]
    rows = []
    for name, command, force in tqdm(tests, unit="test", file=sys.stderr):
        row = trial(
            act, embodiment, args.robots, command, args.seconds, args.seed, force, args.duration, args.body
        )
        rows.append({"test": name, **row})
    print_table(rows)
    who = "scripted controller" if args.scripted else str(args.bundle)
    save(args.out, args.name, rows, controller=who, push_seconds=args.duration, body=args.body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
