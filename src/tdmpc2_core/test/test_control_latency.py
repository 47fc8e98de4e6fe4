"""Planning ahead of the actions in flight, on a linear system whose model is exact."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.latency import MOST, InFlight
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.planning.policy import PolicyPlanner

PERIOD = 0.02
A = torch.tensor([[1.0, 0.1], [0.0, 1.0]])  # a cart: position and speed, pushed
B = torch.tensor([[0.0], [0.1]])
GAIN = torch.tensor([[10.0, 8.0]])  # poles at 0.9 and 0.3 without delay, unstable with three decisions of it


class Cart:
    """The system as its own world model; its policy is the state feedback."""

    config = SimpleNamespace(action_dim=1)

    def encode(self, obs: Tensor, task: Any = None) -> Tensor:
        return obs

    def next(self, z: Tensor, action: Tensor, task: Any = None) -> Tensor:
        return z @ A.T + action @ B.T

    def policy(self, z: Tensor, task: Any = None, noise: Any = None) -> Any:
        mean = -z @ GAIN.T
        return SimpleNamespace(mean=mean, action=mean, log_std=torch.zeros_like(mean))

    def q_values(self, z: Tensor, action: Tensor, task: Any = None) -> Tensor:
        return torch.zeros(2, len(z), 1)


def run(delay: int, compensated: bool, steps: int = 60) -> np.ndarray:
    """Positions of the cart whose commands act `delay` decisions late."""
    config = PlannerConfig(method="policy", horizon=1, kernels="off")
    cart: Any = Cart()
    planner = PolicyPlanner(cart, config, 0.99, torch.Generator())
    flying, state, positions = InFlight(PERIOD, 1), torch.tensor([[1.0, 0.0]]), []
    waiting = [torch.zeros(1, 1)] * delay
    for action in waiting:
        flying.sent(action[0].numpy())
    for _ in range(steps):
        positions.append(float(state[0, 0]))
        given = flying.actions(delay * PERIOD) if compensated else None
        ahead = None if given is None else torch.from_numpy(given)[:, None]
        action = planner.plan(state, torch.zeros(1, dtype=torch.bool), True, in_flight=ahead).action
        flying.sent(action[0].numpy())
        waiting.append(action)
        state = cart.next(state, waiting.pop(0))
    return np.array(positions)


@pytest.mark.parametrize("delay", [1, 3, MOST])
def test_a_compensated_system_moves_as_without_delay_only_later(delay):
    undelayed, late = run(0, False), run(delay, True)
    assert late[delay:] == pytest.approx(undelayed[: len(late) - delay], abs=1e-4)


def test_the_same_delay_without_compensation_is_unstable():
    assert np.abs(run(3, False)).max() > 10.0 * np.abs(run(3, True)).max()


def test_actions_in_flight_are_the_newest_ones_oldest_first():
    flying = InFlight(PERIOD, 1)
    assert flying.actions(1.0) is None
    for value in range(5):
        flying.sent(np.array([value], np.float32))
    assert flying.actions(0.009) is None  # less than half a period
    found = flying.actions(0.041)
    assert found is not None and found[:, 0].tolist() == [3.0, 4.0]
    assert len(flying.actions(1.0)) == 5  # as many as were sent
    flying.restart()
    assert flying.actions(0.04) is None


def test_the_age_of_observations_counts_and_nonsense_does_not():
    flying = InFlight(PERIOD, 1)
    for value in range(4):
        flying.sent(np.array([value], np.float32))
        flying.measured(0.03)
        flying.measured(math.nan)
        flying.measured(-1.0)
    assert flying.age == pytest.approx(0.03)
    assert len(flying.actions(0.02)) == 2  # 2.5 periods, to even
    flying.measured(1e9)
    assert flying.age < 0.04


def test_an_agent_plans_from_the_latent_that_its_model_foretells():
    agent = Agent.load(shipped_bundle("arm"), seed=0)
    random = np.random.default_rng(0)
    obs = random.normal(size=agent.model.config.obs_dim).astype(np.float32)
    sent = random.uniform(-1, 1, (2, agent.model.config.action_dim)).astype(np.float32)
    with torch.no_grad():
        z = agent.model.encode(torch.from_numpy(obs)[None])
        for action in torch.from_numpy(sent):
            z = agent.model.next(z, action[None])
        expected = agent.model.policy(z).mean[0].numpy()
    plan = agent.plan(obs, now=0.0, use_prior=True, in_flight=sent)
    assert plan.actions[0] == pytest.approx(expected, abs=1e-4)
    assert np.abs(agent.plan(obs, now=0.0, use_prior=True).actions[0] - expected).max() > 1e-3
