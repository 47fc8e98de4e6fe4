"""What becomes of a walking robot whose planner dies, by what is done about it.

Robots walk under their bundle's policy prior, randomised, on commands of `evaluation_commands`; at a random
instant between 1.2 and 2.4 s the planner is gone. From the same state, each for 3 s: the last target held, as
a stock controller does, what the supervisor commands on the way to the safe posture, in several times, and
for robots with `safety.balance` the policy prior at a command of zero.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.balance import Balance, NumpyPrior
from tdmpc2_core.control.supervision import COMMANDING, Supervision
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.errors import UserError, natural
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.course import evaluation_commands

_AFTER = 3.0  # s


class Trial:
    """A robot that walks, and what is then done.

    Args:
        seconds: to the safe posture; 0: nothing is done, and None: the robot is balanced.
    """

    def __init__(self, robot: Embodiment, prior: NumpyPrior, number: int, seconds: float | None) -> None:
        content = robot.to_dict()
        content["safety"] |= {"posture_seconds": seconds or robot.safety.posture_seconds}
        self.robot = Embodiment.from_dict(content, directory=robot.directory)
        self.env = env = RobotEnv(self.robot, number, EnvOptions(randomise=True))
        self.balance = Balance(robot, prior, env.sensors, lambda: env.simulation.time)
        self.stops, self.balanced = seconds != 0.0, seconds is None

    def walk(self, agent: Agent, command: np.ndarray, decisions: int) -> None:
        """Follow a command by the policy prior."""
        env = self.env
        env.set_command(command)
        observation = env.reset()
        agent.reset()
        for step in range(decisions):
            first = np.array([step == 0])
            chosen = agent.act(observation[None], first, evaluate=True, use_prior=True)
            self.balance.clock(env.assembler.clock)
            self.balance.follow(env.mapper.targets(chosen.action[0], env.targets))
            observation = env.step(chosen.action[0]).observation

    def falls(self) -> bool:
        """Whether the robot falls once the planner is gone."""
        robot, simulation, targets = self.robot, self.env.simulation, self.env.targets
        supervision = Supervision(robot, balance=self.balance if self.balanced else None)
        supervision.heartbeat(0.0, COMMANDING)
        supervision.command(0.0, targets)
        supervision.died()
        for tick in range(round(_AFTER * robot.control_rate)):
            now = tick * robot.control_period
            if self.stops and supervision.decide(now):
                found = supervision.targets(now)
                targets = targets if found is None else found[0]
            self.env.advance(targets)
            for source in simulation.sources:
                self.env.sensors.store(source, simulation.time, simulation.read(source))
            if simulation.fallen():
                return True
        return False


def main() -> int:
    """Print the table; write safe_stop.json."""
    options = parser(__doc__ or "", "python benchmarks/safe_stop.py --robot quadruped --stops 96")
    options.add_argument("--robot", default="quadruped", help="shipped robot (default %(default)s)")
    options.add_argument("--stops", type=natural, default=96, help="instants (default %(default)s)")
    given = options.parse_args()
    torch.set_num_threads(1)
    agent, prior, robot = (
        Agent.load(given.robot, seed=0),
        NumpyPrior(Path(given.robot)),
        Embodiment.load(given.robot),
    )
    if robot.safe_posture is None:
        raise UserError(f"--robot {given.robot}: has no safe posture; give a robot that can fall")
    done: dict[str, float | None] = {"nothing": 0.0}
    done |= {f"safe posture in {seconds:g} s": seconds for seconds in (0.2, 0.5, 1.0)}
    if robot.safety.balance:
        done["balanced by the policy prior"] = None
    fallen, rng = dict.fromkeys(done, 0), np.random.default_rng(0)
    commands = evaluation_commands(robot, given.stops)
    for number in tqdm(range(given.stops), unit="stop"):
        decisions = int(rng.integers(60, 120))
        for label, seconds in done.items():
            trial = Trial(robot, prior, number, seconds)
            trial.walk(agent, commands[number], decisions)
            fallen[label] += trial.falls()
    rows = [
        {"robot": given.robot, "done": label, "stops": given.stops, "falls": count}
        for label, count in fallen.items()
    ]
    print_table(rows)
    save(results_of(given.out), f"safe_stop_{given.robot}", rows)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
