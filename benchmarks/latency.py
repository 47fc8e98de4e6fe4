"""Return and tracking against a delay from command to effect, with and without planning ahead of it.

Robots of one bundle in simulation, alike but for their commands, their noise and the delay. With compensation
each decision is made from the latent that the model foretells once the actions in flight have acted, less the
mean delay that the model learned with. Robots are paired by their seeds; intervals are 95 %, by bootstrap
over robots.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.latency import learned_delay
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.paired import Act, gain, outcomes

DELAYS = (0, 20, 40, 60, 80)  # ms


def delayed(robot: Embodiment, milliseconds: float) -> Embodiment:
    """The robot with this delay in every episode, and nothing else that varies."""
    content = robot.to_dict()
    content["randomisation"] = {"delay": [1e-3 * milliseconds] * 2}
    return Embodiment.from_dict(content, directory=robot.directory)


def deciding(agent: Agent, in_flight: int, use_prior: bool) -> Act:
    """The agent, planning ahead of so many actions; 0: from what is observed.

    A robot that begins anew counts those of its last episode for as many decisions.
    """
    chosen, flying = agent.fork(seed=0), deque[np.ndarray](maxlen=max(in_flight, 1))

    def act(observed: np.ndarray, first: np.ndarray) -> np.ndarray:
        ahead = np.stack(flying) if in_flight and flying else None
        found = chosen.act(observed, first, evaluate=True, use_prior=use_prior, in_flight=ahead)
        flying.append(found.action)
        return found.action

    return act


def compare(name: str, robots: int, seconds: float, planner: str) -> list[dict[str, Any]]:
    """A row per delay."""
    agent, rows = Agent.load(name), []
    if agent.embodiment is None:
        raise UserError(f"--models {name}: is of no robot; give the bundle of one")
    for milliseconds in tqdm(DELAYS, unit="delay", desc=name):
        robot = delayed(agent.embodiment, milliseconds)
        beyond = max(0.0, 1e-3 * milliseconds - learned_delay(agent.embodiment))
        count, use_prior = round(beyond * robot.control_rate), planner == "prior"
        plain = outcomes(deciding(agent, 0, use_prior), robot, robots, seconds)
        ahead = plain if not count else outcomes(deciding(agent, count, use_prior), robot, robots, seconds)
        found = gain(ahead, plain)
        rows.append(
            {
                "robot": name,
                "decides": planner,
                "delay ms": milliseconds,
                "in flight": count,
                "reward": found.base,
                "gain": str(found.reward),
                "error": found.base_error,
                "gain of error": str(found.error),
                "falls": found.falls[1],
                "falls ahead": found.falls[0],
                "reward ahead": float(ahead.reward.mean()),
                "error ahead": float(ahead.error.mean()),
                "robots": robots,
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Reward as a share of that without delay."""
    chart, axes = figure("Planning ahead of actions in flight", "delay, ms", "reward, share of that at 0 ms")
    for name in dict.fromkeys(row["robot"] for row in rows):
        mine = [row for row in rows if row["robot"] == name]
        for key, style in (("reward", "o--"), ("reward ahead", "o-")):
            shares = [row[key] / mine[0]["reward"] for row in mine]
            label = f"{name}, {'as it is' if key == 'reward' else 'planned ahead'}"
            axes.plot([row["delay ms"] for row in mine], shares, style, label=label)
    axes.legend()
    save_figure(chart, path)


def main() -> int:
    """Print the table; write latency.json and latency.png, or latency_planner of the bundles' planners."""
    options = parser(__doc__ or "", "python benchmarks/latency.py --robots 32")
    options.add_argument("--models", nargs="+", default=["quadruped", "arm"], help="bundles of robots")
    options.add_argument("--robots", type=natural, default=32, help="side by side (default %(default)s)")
    options.add_argument("--seconds", type=positive, default=8.0, help="of each (default %(default)s)")
    options.add_argument("--decides", choices=("prior", "planner"), default="prior")
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in given.models for row in compare(name, given.robots, given.seconds, given.decides)]
    print_table(rows)
    out, name = results_of(given.out, *given.models), "latency" + "_planner" * (given.decides == "planner")
    save(out, name, rows, seconds=given.seconds)
    draw(rows, out / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
