"""How a legged robot stands, takes pushes and follows slow commands: its bundle, or its scripted controller.

A push is a horizontal force on a body for a time, in a random direction, at a random instant of the second
second. Sensor noise, random starts and randomised friction, mass, gains and delay are on; the
randomisation's own pushes are off.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.protocol import StepResult
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.errors import natural, positive
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.branches import steady
from tdmpc2_core.scoring.evaluation import Act, acting, demonstrating, play


@dataclass(frozen=True)
class Push:
    """A horizontal force, N, on a body for some seconds; none where it is 0."""

    force: float
    seconds: float
    body: str


def trial(
    act: Act, environments: list[RobotEnv], command: dict[str, float], seconds: float, push: Push, seed: int
) -> dict[str, float | int | str]:
    """One row: robots under one command, each pushed once in its own direction."""
    embodiment, count, rng = environments[0].embodiment, len(environments), np.random.default_rng(seed)
    names = embodiment.command.names if embodiment.command else ()
    for env in environments:
        env.set_command(np.array([command.get(name, 0.0) for name in names]))
    angles, starts = rng.uniform(0.0, 2.0 * np.pi, count), rng.uniform(1.0, 2.0, count)
    forces = push.force * np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=1)
    velocities: list[np.ndarray] = []

    def watch(step: int, index: int, _: StepResult) -> None:
        simulation, time = environments[index].simulation, step * embodiment.control_period
        if time >= 1.0:
            linear, angular = simulation.base_velocity()
            velocities.append(np.array([linear[0], linear[1], angular[2]]))
        if push.force:  # in the next decision
            on = starts[index] <= time + embodiment.control_period < starts[index] + push.seconds
            simulation.set_force(push.body, on * forces[index])

    _, alive = play(act, environments, round(seconds * embodiment.control_rate), watch)
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
    options.add_argument(
        "--robots", type=natural, default=32, help="robots, each pushed in a random direction"
    )
    options.add_argument("--seconds", type=positive, default=6.0, help="length of a trial")
    options.add_argument("--force", type=float, nargs="*", default=[50.0, 100.0, 150.0], help="N")
    options.add_argument("--duration", type=positive, default=0.1, help="s")
    options.add_argument("--body", default="torso_link", help="body that is pushed")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--name", default="pushes", help="name of the JSON file")
    args = options.parse_args()
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(1)
    agent = None if args.scripted else Agent.load(args.bundle)
    embodiment = steady(agent.embodiment if agent else Embodiment.load(args.bundle), hold=False)
    slow = {"step in place": {"linear_x": 0.03}, "walk": {"linear_x": 0.3}, "walk back": {"linear_x": -0.15}}
    slow |= {"walk sideways": {"linear_y": 0.1}, "turn": {"angular_z": 0.4}}
    tests = [("stand", {}, 0.0), *((f"stand, {force:g} N", {}, force) for force in args.force)]
    tests += [(name, command, 0.0) for name, command in slow.items()]
    rows = []
    for name, command, force in tqdm(tests, unit="test", file=sys.stderr):
        act = acting(agent) if agent else demonstrating(embodiment, args.robots)
        environments = [RobotEnv(embodiment, args.seed + index) for index in range(args.robots)]
        push = Push(force, args.duration, args.body)
        rows.append({"test": name, **trial(act, environments, command, args.seconds, push, args.seed)})
    print_table(rows)
    who = "scripted controller" if args.scripted else str(args.bundle)
    save(args.out, args.name, rows, controller=who, push_seconds=args.duration, body=args.body)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
