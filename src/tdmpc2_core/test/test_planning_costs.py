"""Costs at plan time: terms against their formulas, their effect on plans, what is refused."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.config import from_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.imagine.rollout import ModelRollout
from tdmpc2_core.model import WorldModel
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.planning.costs import COSTS, DRIVE_ERROR, JOINT_VELOCITY, TURNING, VELOCITY, Costs, PlanCosts
from tdmpc2_core.robots import Embodiment

ROBOT = Embodiment.load("quadruped")
JOINTS = ROBOT.num_joints
READINGS = (*[VELOCITY] * 3, *[TURNING] * 3, *[JOINT_VELOCITY] * JOINTS, *[DRIVE_ERROR] * JOINTS)
SEARCH = PlannerConfig(horizon=3, num_samples=256, num_elites=16, num_pi_trajs=4, iterations=3)


def robot_model(**changes: object) -> WorldModel:
    sizes = {"obs_dim": ROBOT.observation_dim, "action_dim": ROBOT.action_dim}
    return small_model(**sizes, readings=READINGS, **changes)


def states(plans: int = 5, steps: int = 4) -> torch.Tensor:
    return torch.randn(steps, plans, len(READINGS), generator=generator(4))


def cost(costs: Costs, state: torch.Tensor) -> torch.Tensor:
    """Of states that a model tells, whatever its latents."""
    model = robot_model()
    model.read_state = lambda z: state  # type: ignore[method-assign]
    return PlanCosts(costs, model, ROBOT)(
        torch.zeros(*state.shape[:2], 16), torch.zeros(*state.shape[:2], 12)
    )


def test_every_term_has_a_weight_that_is_off() -> None:
    assert set(COSTS) <= {field.name for field in fields(Costs)}
    assert all(getattr(Costs(), name) == 0.0 for name in COSTS)
    assert not PlanCosts(Costs(), robot_model(), ROBOT).active


def test_terms_are_their_formulas() -> None:
    state = states()
    velocity = state[..., :2].norm(dim=-1)
    torch.testing.assert_close(
        cost(Costs(speed=2.0, speed_cap=0.5), state), 2.0 * (velocity - 0.5).clamp(min=0).square().sum(0)
    )
    joint, error = state[..., 6 : 6 + JOINTS], state[..., 6 + JOINTS :]
    torque = torch.tensor(ROBOT.kp).float() * error - torch.tensor(ROBOT.kd).float() * joint
    torch.testing.assert_close(cost(Costs(energy=0.1), state), 0.1 * (torque * joint).abs().sum((0, 2)))
    torch.testing.assert_close(cost(Costs(wear=1.5), state), 1.5 * joint.square().mean(-1).sum(0))


def test_the_zone_is_met_where_the_robot_will_be() -> None:
    """1 m/s ahead for four decisions of 0.02 s, then 0.6 s on; the second robot turns left at once."""
    state = torch.zeros(4, 2, len(READINGS))
    state[..., 0] = 1.0
    state[0, 1, 5] = 0.5 * np.pi / ROBOT.control_period
    ahead = Costs(keep_out=1.0, zone=(0.64, 0.0, 0.3), foresight=0.6)
    found = cost(ahead, state)
    distance = torch.tensor([0.62, 0.64, 0.66, 0.68]) - 0.64
    torch.testing.assert_close(found[0], (0.3 - distance.abs()).square().sum())
    assert found[1] == 0.0
    torch.testing.assert_close(cost(replace(ahead, zone=(0.0, 0.64, 0.3)), state)[1], found[0])


@pytest.mark.parametrize("kernels", ["off", "auto"])
def test_a_plan_heeds_its_costs(kernels: str) -> None:
    observed, excess = np.zeros(ROBOT.observation_dim, np.float32), []
    for costs in (Costs(), Costs(speed=1000.0, speed_cap=0.0)):
        agent = Agent(robot_model(), replace(SEARCH, kernels=kernels), embodiment=ROBOT, seed=1)
        with torch.no_grad():
            agent.model.state_head.weight.mul_(30.0)
            agent.set_costs(costs)
            plan = torch.from_numpy(agent.plan(observed, now=0.0, first=True).actions)
            z, total = agent.model.encode(torch.from_numpy(observed)), 0.0
            for action in plan:
                z = agent.model.next(z, action)
                total += float(agent.model.read_state(z)[:2].square().sum())
        excess.append(total)
    assert excess[1] < 0.8 * excess[0]


def test_returns_lose_the_costs() -> None:
    model = robot_model()
    plain, charged = ModelRollout(model, 0.97), ModelRollout(model, 0.97)
    charged.costs = PlanCosts(Costs(wear=0.3), model, ROBOT)
    g = generator(2)
    latent, noise = torch.rand(2, 16, generator=g), torch.zeros(2, 5, 12)
    actions = torch.rand(3, 2, 5, 12, generator=g)
    with torch.no_grad():
        lost = plain.returns(latent, actions, noise, (0, 1)) - charged.returns(latent, actions, noise, (0, 1))
        z, wanted = latent.unsqueeze(1).expand(-1, 5, -1), torch.zeros(2, 5)
        for action in actions:
            z = model.next(z, action)
            wanted += 0.3 * model.read_state(z)[..., 6 : 6 + JOINTS].square().mean(-1)
    torch.testing.assert_close(lost, wanted, rtol=1e-3, atol=1e-3)


def test_what_is_refused() -> None:
    sizes = {"obs_dim": ROBOT.observation_dim, "action_dim": ROBOT.action_dim}
    with pytest.raises(UserError, match=r"costs.speed: the model does not tell the linear velocity"):
        Agent(small_model(**sizes), SEARCH, embodiment=ROBOT).set_costs(Costs(speed=1.0))
    with pytest.raises(UserError, match="has no costs at plan time; plan with mppi"):
        Agent(robot_model(), "policy", embodiment=ROBOT).set_costs(Costs(speed=1.0))
    for method in ("gradient", "mppi+gradient"):
        with pytest.raises(UserError, match="has no costs at plan time; plan with mppi"):
            Agent(robot_model(), method, embodiment=ROBOT).set_costs(Costs(speed=1.0))
    with pytest.raises(UserError, match="this agent has none"):
        Agent(small_model(), SEARCH).set_costs(Costs(speed=1.0))
    with pytest.raises(UserError, match="speed_cap"):
        from_mapping(Costs, {"speed_cap": -1.0}, "costs.yaml")


def test_costs_of_the_settings_count_from_the_start() -> None:
    agent = Agent(robot_model(), replace(SEARCH, costs=Costs(wear=5.0)), embodiment=ROBOT)
    assert agent.planner.rollout.costs.active  # type: ignore[attr-defined]
    agent.set_costs(Costs(zone=(1.0, 0.0, 0.2)))
    assert agent.planner.rollout.costs is None  # type: ignore[attr-defined]  # nothing is computed for nothing
