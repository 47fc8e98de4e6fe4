"""Trust figures against their formulas, and on the shipped quadruped with sensors that lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planning_support import small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.trust import TrustLimits, TrustMonitor, judge
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.files import shipped_bundle


def test_figures_are_those_of_the_formulas():
    model = small_model(num_q=5, episodic=True)
    monitor = TrustMonitor(model)
    random = np.random.default_rng(0)
    obs, plans = random.normal(size=(2, 9)), random.uniform(-1, 1, (2, 3, 4)).astype(np.float32)
    first = monitor.assess(obs[0], plans[0], None)
    assert math.isnan(first.trust.consistency)
    second = monitor.assess(obs[1], plans[1], plans[0, 0])
    with torch.no_grad():
        z = [model.encode(torch.tensor(row, dtype=torch.float32)) for row in obs]
        step = model.next(z[0], torch.tensor(plans[0, 0]))
        consistency = np.mean((step.numpy() - z[1].numpy()) ** 2)
        end = z[1]
        for action in plans[1]:
            end = model.next(end, torch.tensor(action))
        values = [float(model.q_values(end, model.policy(end).mean, heads=[k])) for k in range(5)]
        reward = float(model.reward(z[1], torch.tensor(plans[1, 0])))
        ended = float(model.termination(model.next(z[1], torch.tensor(plans[1, 0]))))
    assert second.trust.consistency == pytest.approx(consistency, rel=1e-4)
    assert second.trust.disagreement == pytest.approx(np.std(values), rel=1e-3, abs=1e-5)
    assert second.latent == pytest.approx(z[1].numpy(), abs=1e-6)
    assert (second.reward, second.termination) == pytest.approx((reward, ended), rel=1e-4)


def test_reset_forgets_the_previous_decision():
    model = small_model()
    monitor, plan = TrustMonitor(model), np.zeros((3, 4), np.float32)
    monitor.assess(np.zeros(9), plan, None)
    monitor.reset()
    assert math.isnan(monitor.assess(np.zeros(9), plan, plan[0]).trust.consistency)


def test_multi_task_model_is_asked_for_its_task():
    model = small_model(task_dim=4, action_dims=(4, 4))
    plan = np.zeros((3, 4), np.float32)
    figures = [TrustMonitor(model).assess(np.ones(9), plan, None, task).latent for task in (0, 1)]
    assert np.abs(figures[0] - figures[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("disagreement", "consistency", "level", "trust"),
    [
        (0.5, 0.001, "ok", 0.75),
        (0.5, math.nan, "ok", 0.75),
        (0.85, 0.001, "warn", 0.575),
        (0.1, 0.012, "error", 0.4),
        (3.0, 0.0, "error", 0.0),
        (math.inf, 0.0, "error", 0.0),
        (math.nan, 0.0, "error", 0.0),
    ],
)
def test_levels(disagreement, consistency, level, trust):
    result = judge(disagreement, consistency, TrustLimits(1.0, 0.01))
    assert result.level == level and result.trust == pytest.approx(trust)
    assert (result.reason == "") == (level == "ok")


def test_without_limits_nothing_is_judged():
    result = judge(1e9, 1e9, TrustLimits())
    assert result.level == "ok" and math.isnan(result.trust)
    with pytest.raises(ValueError, match="disagreement"):
        TrustLimits(-1.0)


def _figures(agent: Agent, offset: float) -> tuple[float, float]:
    """Medians over one second of walking with every knee measured `offset` rad away from where it is."""
    env = RobotEnv(agent.embodiment, 3, EnvOptions(sensor_noise=False, randomise=False, random_reset=False))
    env.set_command(np.array([0.5, 0.0, 0.0]))
    layout = next(b for b in agent.embodiment.observation_layout if b.name == "joint_position")
    knees = np.arange(layout.start + 2, layout.start + layout.size, 3)
    monitor, observation, previous, rows = TrustMonitor(agent.model), env.reset(), None, []
    for k in range(50):
        seen = observation.copy()
        seen[knees] += offset * (k % 2)
        plan = agent.plan(seen, now=0.0, first=k == 0)
        insight = monitor.assess(seen, plan.actions, previous)
        previous = plan.actions[0]
        rows.append((insight.trust.disagreement, insight.trust.consistency))
        observation = env.step(previous).observation
    return tuple(np.median(rows[10:], axis=0))


def test_lying_sensors_are_seen():
    agent = Agent.load(shipped_bundle("quadruped"))
    (_, honest), (_, lying) = _figures(agent, 0.0), _figures(agent, 1.0)
    assert lying > 2.0 * honest > 0.0
