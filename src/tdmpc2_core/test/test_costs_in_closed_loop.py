"""Costs at plan time on the walking quadruped, robot by robot against the same walk without them."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.planning.costs import Costs

ROBOTS, SECONDS, SETTLE = 4, 4.0, 1.0
BUNDLE = Path(str(files("tdmpc2_core"))) / "bundles" / "quadruped"


def walked(costs: Costs) -> dict[str, np.ndarray]:
    """(robots,) means of a walk at 0.6 m/s: forward speed, m/s, and square of joint velocities, (rad/s)^2.

    The search starts half way between the policy prior and the plan before: from the prior alone it does not
    get away within a decision.
    """
    loaded = Agent.load(BUNDLE)
    agent = loaded.fork(replace(loaded.planner_config, prior_weight=0.5))
    agent.set_costs(costs)
    assert agent.embodiment is not None
    env = BatchEnv(agent.embodiment, ROBOTS, seed=7)
    env.set_command((0.6, 0.0, 0.0))
    observed, first, speed, wear = env.reset(), np.ones(ROBOTS, dtype=bool), [], []
    for _ in range(round(SECONDS * agent.embodiment.control_rate)):
        step = env.step(agent.act(observed, first, evaluate=True).action)
        observed, first = step.observation, step.terminated | step.truncated
        assert not step.terminated.any(), "a robot fell"
        speed.append(env.fleet.base_velocity()[0][:, 0])
        wear.append(np.square(env.fleet.joint_velocity()).mean(1))
    settled = round(SETTLE * agent.embodiment.control_rate)
    return {"speed": np.mean(speed[settled:], 0), "wear": np.mean(wear[settled:], 0)}


@pytest.fixture(scope="module")
def free() -> dict[str, np.ndarray]:
    return walked(Costs())


@pytest.mark.parametrize(
    ("costs", "share"),
    [(Costs(speed=300.0, speed_cap=0.3), 0.9), (Costs(wear=0.1), 0.97)],
    ids=["speed", "wear"],
)
def test_a_cost_lowers_what_it_is_of_on_every_robot(
    free: dict[str, np.ndarray], costs: Costs, share: float
) -> None:
    name = "speed" if costs.speed else "wear"
    assert (free["speed"] > 0.4).all(), "they did not walk"
    assert (walked(costs)[name] < share * free[name]).all()
