"""The agent that the planner node's parameters name: overridden settings, calibration."""

from __future__ import annotations

import pytest
from random_agent import random_agent

from tdmpc2_core.errors import UserError
from tdmpc2_ros.planner.model import PlannerParameters, load_agent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "bundle"
    random_agent(planner="tiny").save(path)
    return str(path)


def test_parameters_override_the_bundle(bundle):
    agent, line = load_agent(PlannerParameters(bundle, samples=40, iterations=1))
    config = agent.planner_config
    assert (config.num_samples, config.iterations, config.num_pi_trajs) == (40, 1, 20) and not line
    agent, _ = load_agent(PlannerParameters(bundle, method="gradient"))
    assert agent.planner_config.method == "gradient"
    with pytest.raises(UserError, match="model is empty"):
        load_agent(PlannerParameters())


def test_calibration_says_what_it_chose_and_keeps_to_the_deadline(bundle):
    agent, line = load_agent(PlannerParameters(bundle, calibrate=True, deadline_ms=1000.0))
    assert line.startswith("mppi 64 samples x 2 for 50 Hz: ") and "of 1000.0 ms" in line
    assert agent.planner_config.summary == "mppi 64 samples x 2"
    agent, line = load_agent(PlannerParameters(bundle, calibrate=True, deadline_ms=0.01))
    assert agent.planner_config.method == "policy" and "no search fits" in line
