"""Planners are rows of a registry: another one is a class and a row."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.calibration import calibrate
from tdmpc2_core.imagine.rollout import ModelRollout
from tdmpc2_core.planning import PLANNERS, PlanBatch, Planner, PlannerConfig, PlanRequest, make_planner

DOCS = Path(__file__).resolve().parents[3] / "docs/reference/planners.md"


class CrossEntropy(Planner):
    """The cross-entropy method (Rubinstein, 1999): refit a Gaussian to the best candidates."""

    summary = "refits a Gaussian to the best candidates"

    @classmethod
    def budget(cls, config: PlannerConfig) -> str:
        return f"cem {config.num_samples} x {config.iterations}"

    @classmethod
    def cheaper(cls, config: PlannerConfig) -> PlannerConfig | None:
        return replace(config, iterations=config.iterations - 1) if config.iterations > 1 else None

    def _plan(self, request: PlanRequest) -> PlanBatch:
        obs, task = request.obs, request.task
        config, rollout = self.config, ModelRollout(self.model, self.discount)
        z = rollout.encode(obs, task)
        shape = (config.horizon, len(obs), config.num_samples, self.model.config.action_dim)
        mean = rollout.prior(z, torch.zeros(shape)[:, :, :1], task).squeeze(2)
        std = torch.full_like(mean, 0.5)
        for _ in range(config.iterations):
            noise = torch.randn(shape, generator=self.generator)
            actions = torch.addcmul(mean.unsqueeze(2), std.unsqueeze(2), noise).clamp_(-1.0, 1.0)
            values = rollout.returns(z, actions, torch.zeros(shape[1:]), (0, 1), task)
            best = values.topk(config.num_elites, dim=1).indices
            elites = actions[:, torch.arange(len(obs)).unsqueeze(1), best]
            mean, std = elites.mean(2), elites.std(2)
        order = (mean.transpose(0, 1), std.transpose(0, 1))
        return PlanBatch(mean[0], *order, values.amax(1), config.iterations, "budget")


@pytest.fixture
def cem(monkeypatch: pytest.MonkeyPatch) -> PlannerConfig:
    """Settings of the made-up planner, whose row is there for one test."""
    monkeypatch.setitem(PLANNERS, "cem", CrossEntropy)
    return PlannerConfig(method="cem", num_samples=256, num_elites=16, iterations=4)


def test_a_new_planner_is_a_class_and_a_row(cem: PlannerConfig) -> None:
    model = small_model()
    obs, start = torch.randn(3, 9, generator=generator(1)), torch.ones(3, dtype=torch.bool)
    plan = make_planner(model, cem, 0.97, generator()).plan(obs, start, evaluate=True)
    rollout = ModelRollout(model, 0.97)
    with torch.no_grad():
        z = rollout.encode(obs)
        prior = rollout.prior(z, torch.zeros(3, 3, 1, 4))
        found, usual = (
            rollout.returns(z, actions, torch.zeros(3, 1, 4), (0, 1))
            for actions in (plan.mean.transpose(0, 1).unsqueeze(2), prior)
        )
    assert (found > usual + 0.01).all(), "it plans better than the prior acts"
    agent = Agent(model, cem)
    assert agent.plan(np.zeros(9, np.float32), 0.0).horizon == 3
    assert cem.summary == "cem 256 x 4"
    found = calibrate(agent, 1.0)
    assert found.config.method == "cem"


def test_its_name_is_accepted_only_while_it_is_registered() -> None:
    with pytest.raises(ValueError, match="mppi, policy, gradient, mppi\\+gradient"):
        PlannerConfig(method="cem")


def test_documented_planners_are_the_registered_ones() -> None:
    table = DOCS.read_text("utf-8").split("| method | what it does |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|$", table, re.M))
    assert rows == {name: planner.summary for name, planner in PLANNERS.items()}
