"""The arm's shipped bundle: made for the shipped robot, and it brings the tool to goals."""

import numpy as np
import pytest

from tdmpc2_core.agent import Agent
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.evaluation import evaluate_robot, evaluation_table, summary


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent.load(shipped_bundle("arm"), device="cpu")


def test_bundle_is_for_the_shipped_robot_and_says_how_it_came_about(agent):
    assert agent.embodiment.fingerprint == Embodiment.load("arm").fingerprint
    assert agent.provenance["command"].startswith("tdmpc2 train robot=arm")
    assert agent.provenance["updates"] > 0 and agent.measured


def test_tool_comes_to_most_goals_and_the_evaluation_counts_them(agent):
    result = evaluate_robot(agent, agent.embodiment, seconds=4.0, episodes=8, seed=3, randomise=False)
    assert result.goals == result.episodes == 8 and result.falls == 0
    assert result.success >= 0.6 and result.reached >= result.success
    assert np.isfinite(result.position_error) and result.position_error < 0.03
    share = f"{100 * result.success:.1f} % of 8"
    assert share in summary(result) and share in evaluation_table({"bundle": result})
