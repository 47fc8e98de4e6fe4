"""What becomes of a walking robot whose planner dies, by what is done about it: nothing, or the safe posture.

Robots walk under their bundle's policy prior, randomised, on commands of `evaluation_commands`; at a random
instant between 1.2 and 2.4 s the planner is gone. From the same state, each for 3 s: the last target held, as
a stock controller does, and the way to the safe posture that the supervisor commands, in several times.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.supervision import COMMANDING, Supervision
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.errors import UserError, natural
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.course import evaluation_commands

_AFTER = 3.0  # s


def falls(env: RobotEnv, stop: bool) -> bool:
    """Whether the robot falls from here: held at its last target, or taken to its safe posture."""
    robot, simulation, last = env.embodiment, env.simulation, env.safety.last
    assert last is not None
    supervision = Supervision(robot)
    supervision.heartbeat(0.0, COMMANDING)
    supervision.command(0.0, last)
    supervision.died()
    for tick in range(round(_AFTER * robot.control_rate)):
        targets = last
        found = supervision.decide(tick * robot.control_period) if stop else None
        if found is not None and found.targets is not None:
            targets = found.targets[0]
        for _ in range(robot.physics_steps):
            simulation.step(targets)
        if simulation.fallen():
            return True
    return False


def robots_of(name: str, times: list[float]) -> list[tuple[str, bool, Embodiment]]:
    """What is compared: a label, whether somebody stops the robot, and the robot with that time."""
    known = Embodiment.load(name)
    rows = [("nothing", False, known)]
    for seconds in times:
        content = known.to_dict()
        content["safety"] |= {"posture_seconds": seconds}
        robot = Embodiment.from_dict(content, directory=known.directory)
        rows.append((f"safe posture in {seconds:g} s", True, robot))
    return rows


def main() -> int:
    """Print the table; write safe_stop.json."""
    options = parser(__doc__ or "", "python benchmarks/safe_stop.py --robot quadruped --stops 96")
    options.add_argument("--robot", default="quadruped", help="shipped robot (default %(default)s)")
    options.add_argument("--stops", type=natural, default=96, help="instants (default %(default)s)")
    given = options.parse_args()
    torch.set_num_threads(1)
    agent = Agent.load(given.robot, seed=0)
    compared = robots_of(given.robot, [0.2, 0.5, 1.0])
    if compared[0][2].safe_posture is None or agent.embodiment is None:
        raise UserError(f"--robot {given.robot}: has no safe posture; give a robot that can fall")
    fallen, rng = np.zeros(len(compared), int), np.random.default_rng(0)
    commands = evaluation_commands(compared[0][2], given.stops)
    for number in tqdm(range(given.stops), unit="stop"):
        decisions = int(rng.integers(60, 120))
        for row, (_, stop, robot) in enumerate(compared):
            env = RobotEnv(robot, number, EnvOptions(randomise=True))
            env.set_command(commands[number])
            observation = env.reset()
            agent.reset()
            for step in range(decisions):
                first = np.array([step == 0])
                chosen = agent.act(observation[None], first, evaluate=True, use_prior=True)
                observation = env.step(chosen.action[0]).observation
            fallen[row] += falls(env, stop)
    rows = [
        {"robot": given.robot, "done": label, "stops": given.stops, "falls": int(count)}
        for (label, _, _), count in zip(compared, fallen, strict=True)
    ]
    print_table(rows)
    save(results_of(given.out), f"safe_stop_{given.robot}", rows)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
