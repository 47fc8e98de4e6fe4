"""A model in shadow: errors against what is known of the data, what is refused and why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_agent import ROBOT, random_agent

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.decision import Decision
from tdmpc2_core.control.shadow import Shadow, ShadowReport, _Step, prediction_error

GOOD = ShadowReport(100, 80, 0.2, 0.21, 0.1, 0.003, "")


def decisions(agent: Agent, count: int) -> list[Decision]:
    """What a planner decides on noise."""
    random, made, before = np.random.default_rng(0), list[Decision](), None
    for k in range(count):
        observation = random.normal(size=ROBOT.observation_dim).astype(np.float32)
        plan = agent.plan(observation, now=0.02 * k, first=k == 0)
        made.append(Decision(None, "plan", plan=plan, observation=observation, previous=before))
        before = plan.actions[0]
    return made


def shown(new: Agent, count: int = 40) -> ShadowReport:
    """The report of a shadow that sees so many decisions, each once the one before was planned on."""
    running = random_agent()
    made, shadow = decisions(running, count), Shadow(running, new)
    shadow.decided(made[0])

    def ended() -> bool:
        if len(shadow._differences) == len(shadow._steps) < count:
            shadow.decided(made[len(shadow._steps)])
        return len(shadow._differences) == count

    return shadow.watch(20.0, ended)


def test_the_same_model_foretells_as_well_and_acts_alike() -> None:
    found = shown(random_agent())
    assert found.error == found.error_before > 0.0
    assert found.difference < 0.1 and found.plans == 39 and not found.verdict(1.0)


def test_error_is_that_of_the_mean_where_latents_are_foretold_by_it() -> None:
    """A model whose dynamics give the mean latent errs by the variance itself: 1."""
    agent, random = random_agent(), np.random.default_rng(1)
    steps = [
        _Step(*(random.normal(size=n).astype(np.float32) for n in (ROBOT.observation_dim, 12)), True)
        for _ in range(4000)
    ]
    z = agent.model.encode(torch.from_numpy(np.stack([step.observation for step in steps])))
    agent.model.next = lambda latent, action, task: z.mean(0).expand_as(latent)  # type: ignore[method-assign]
    assert prediction_error(agent, steps) == pytest.approx(1.0, rel=1e-3)
    agent.model.next = lambda latent, action, task: z[1:]  # type: ignore[method-assign]
    assert prediction_error(agent, steps) == pytest.approx(0.0, abs=1e-9)


def test_a_model_of_numbers_that_are_not_finite_is_refused() -> None:
    agent = random_agent()
    with torch.no_grad():
        next(agent.model.encoder.parameters()).fill_(math.nan)
    found = shown(agent)
    assert "finite" in found.verdict(1.0) and not math.isfinite(found.error)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"error": 0.4},
            "worse: error 0.4 of the latents' variance, the running model 0.21",
        ),
        ({"error": math.nan}, "prediction error is not finite"),
        ({"difference": 0.7}, "actions are 0.7 off"),
        ({"planning": 0.02}, "a plan takes 20.0 ms, the deadline is 12.0 ms"),
        ({"decisions": 19}, "too few to judge"),
        ({"plans": 3}, "too few to judge"),
    ],
)
def test_refusals_say_why(changes: dict[str, float], reason: str) -> None:
    assert not GOOD.verdict(0.012)
    assert reason in replace(GOOD, **changes).verdict(0.012)
