"""True against identified parameters of simulated robots that were changed in one way each.

Every robot walks under a bundle's prior, with sensor noise and without randomisation; `tdmpc2 identify` is
told of the recorded episodes only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import natural, positive
from tdmpc2_core.identification import Identification, IdentifyConfig, identify
from tdmpc2_core.identification.simulated import record
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.paired import acting


@dataclass(frozen=True)
class Case:
    """A changed robot: how, and the true values that differ from the model's."""

    apply: Callable[[Simulation], None]
    truth: dict[str, float]
    delay: float = 0.0  # s more than nominal


def _weaken(simulation: Simulation) -> None:
    factor = np.ones(simulation.embodiment.num_joints)
    factor[1] = 0.5
    simulation.set_effort(factor)


def cases(robot: Embodiment) -> dict[str, Case]:
    """The five changes by name."""
    delay = 0.5 * sum(robot.randomisation.delay) + 0.02
    joints = robot.num_joints
    return {
        "payload": Case(
            lambda s: s.set_payload(3.0, np.array([0.06, -0.08, 0.0])),
            {"mass": 3.0, "mass_x": 0.06, "mass_y": -0.08},
        ),
        "friction": Case(lambda s: s.set_friction(0.3), {"friction": 0.3}),
        "delay": Case(lambda s: None, {"delay": delay}, 0.02),
        "weak joint": Case(_weaken, {f"effort {robot.joint_names[1]}": 0.5}),
        "gains": Case(lambda s: s.set_gains(np.full(joints, 0.8)), {"kp": 0.8, "kd": 0.8}),
    }


def changed_robot(robot: Embodiment, case: Case) -> Embodiment:
    """The robot that is recorded: able to carry a payload, with the delay of the case."""
    content = robot.to_dict()
    content["randomisation"].pop("curriculum", None)
    delay = 0.5 * sum(robot.randomisation.delay) + case.delay
    content["randomisation"] |= {"payload": [0.0, 3.0], "delay": [delay, delay]}
    return Embodiment.from_dict(content, directory=robot.directory)


def rows_of(name: str, case: Case, result: Identification, seconds: float) -> list[dict[str, Any]]:
    """A row for each true value that was changed."""
    found = {one.parameter.name: one for one in result.found}
    return [
        {
            "change": name,
            "parameter": parameter,
            "true": true,
            "estimate": found[parameter].estimate,
            "low": found[parameter].low,
            "high": found[parameter].high,
            "inside": found[parameter].low <= true <= found[parameter].high,
            "identifiable": found[parameter].identifiable,
            "error before": result.before["all"],
            "error after": result.after["all"],
            "seconds": seconds,
        }
        for parameter, true in case.truth.items()
    ]


def main() -> int:
    """Print the table; write identification.json and identification.png."""
    options = parser(__doc__ or "", "python benchmarks/identification.py")
    options.add_argument("--bundle", default="quadruped", help="bundle folder or a shipped robot")
    options.add_argument("--robots", type=natural, default=15, help="episodes of a robot")
    options.add_argument("--seconds", type=positive, default=20.0, help="length of each")
    options.add_argument("--segments", type=natural, default=IdentifyConfig().segments)
    options.add_argument("--changes", nargs="*", help="some of the changes alone")
    args = options.parse_args()
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(1)
    agent = Agent.load(args.bundle)
    robot = agent.embodiment
    assert robot is not None
    rows, every = [], {}
    for name, case in cases(robot).items():
        if args.changes and name not in args.changes:
            continue
        with tempfile.TemporaryDirectory() as folder:
            machine = changed_robot(robot, case)
            act = acting(agent, "policy")
            record(Path(folder), machine, act, args.robots, args.seconds, change=case.apply)
            started = time.perf_counter()
            result = identify(robot, [Path(folder)], IdentifyConfig(segments=args.segments))
            taken = time.perf_counter() - started
        every[name] = {one.parameter.name: [one.low, one.estimate, one.high] for one in result.found}
        rows += rows_of(name, case, result, taken)
        print_table(rows[-len(case.truth) :])
    save(args.out, "identification", rows, bundle=str(args.bundle), intervals=every)
    fig, axes = figure("identified parameters", "true", "estimate, 95 % interval")
    for row in rows:
        spread = [[row["estimate"] - row["low"]], [row["high"] - row["estimate"]]]
        label = f"{row['change']}: {row['parameter']}"
        axes.errorbar(row["true"], row["estimate"], spread, fmt="o", capsize=3, label=label)
    axes.axline((0.0, 0.0), slope=1.0, color="0.7")
    axes.legend(fontsize=8)
    save_figure(fig, args.out / "identification.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
