"""Trust figures of a bundle in the conditions it was trained for, and outside them.

Each condition walks the robot for `--seconds` with commands drawn from its ranges. The limits are the 99.9th
percentiles of the first condition; the last columns say how often the others are above them. The limits are
what the planner node's parameters disagreement_limit and consistency_limit take.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from common import parser, print_table, results_of, save, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.trust import TrustMonitor
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.errors import positive

Observation = np.ndarray


def _as_it_is(_: Agent, observation: Observation) -> Observation:
    return observation


def _knees_off(agent: Agent, observation: Observation) -> Observation:
    """Every third joint is measured 0.2 rad away from where it is, as with a slipped encoder."""
    return _changed(agent, observation, "joint_position", slice(2, None, 3), 0.2, add=True)


def _gyro_dead(agent: Agent, observation: Observation) -> Observation:
    return _changed(agent, observation, "gyro", slice(None), 0.0, add=False)


def _changed(
    agent: Agent, observation: Observation, term: str, which: slice, value: float, add: bool
) -> Observation:
    assert agent.embodiment is not None
    block = next(b for b in agent.embodiment.observation_layout if b.name == term)
    seen = observation.copy()
    for start in range(block.start, block.stop, block.size):
        part = seen[start : start + block.size]
        part[which] = part[which] + value if add else value
    return seen


def _payload(env: RobotEnv) -> None:
    env.simulation.set_extra_mass(5.0)


def _ice(env: RobotEnv) -> None:
    env.simulation.set_friction(0.1)


def _nothing(env: RobotEnv) -> None:
    pass


class Condition(NamedTuple):
    """What is changed in the simulation after every reset, and in what the agent sees of it."""

    change: Callable[[RobotEnv], None] = _nothing
    see: Callable[[Agent, Observation], Observation] = _as_it_is


CONDITIONS = {
    "as trained": Condition(),
    "5 kg on the trunk": Condition(change=_payload),
    "friction 0.1": Condition(change=_ice),
    "knees measured 0.2 rad off": Condition(see=_knees_off),
    "gyro reads zero": Condition(see=_gyro_dead),
}


def figures(agent: Agent, condition: str, seconds: float, seed: int) -> np.ndarray:
    """Disagreement and consistency of every decision (T, 2); a fall starts the robot anew."""
    assert agent.embodiment is not None
    change, see = CONDITIONS[condition]
    env, monitor, rows = RobotEnv(agent.embodiment, seed), TrustMonitor(agent.model), []
    observation, previous, first = env.reset(), None, True
    change(env)
    for _ in range(round(seconds * agent.embodiment.control_rate)):
        seen = see(agent, observation)
        plan = agent.plan(seen, now=0.0, first=first)
        trust = monitor.assess(seen, plan.actions, previous).trust
        rows.append((trust.disagreement, trust.consistency))
        outcome = env.step(plan.actions[0])
        observation, previous, first = outcome.observation, plan.actions[0], False
        if outcome.terminated or outcome.truncated:
            observation, previous, first = env.reset(), None, True
            change(env)
    return np.array(rows)


def main() -> None:
    options = parser(__doc__ or "", "python benchmarks/trust.py --seconds 60")
    options.add_argument("--model", default="quadruped", help="bundle of a robot")
    options.add_argument("--seconds", type=positive, default=60.0, help="of simulated time per condition")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    given.out = results_of(given.out, given.model)
    agent = Agent.load(given.model, seed=given.seed)
    limits, rows = None, []
    for condition in CONDITIONS:
        found = figures(agent, condition, given.seconds, given.seed)
        if limits is None:
            limits = np.nanpercentile(found, 99.9, axis=0)
        above = found > limits
        rows.append(
            {
                "condition": condition,
                "disagreement p50": float(np.nanmedian(found[:, 0])),
                "p99": float(np.nanpercentile(found[:, 0], 99)),
                "consistency p50": float(np.nanmedian(found[:, 1])),
                "p99 ": float(np.nanpercentile(found[:, 1], 99)),
                "above a limit %": 100.0 * float(above.any(axis=1).mean()),
            }
        )
    assert limits is not None
    print_table(rows)
    print(f"disagreement_limit {limits[0]:.4g}, consistency_limit {limits[1]:.4g}")
    save(given.out, "trust", rows, seconds=given.seconds, limits=[float(limit) for limit in limits])


if __name__ == "__main__":
    sys.exit(script(main))
