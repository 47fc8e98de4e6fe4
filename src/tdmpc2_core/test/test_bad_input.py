"""What users get wrong: lengths, task indices, observations that are not finite. One sentence each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import SHIPPED
from planning_support import small_model

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent, ObservationError
from tdmpc2_core.checkpoint.bundle import Bundle
from tdmpc2_core.checkpoint.official import to_current
from tdmpc2_core.errors import UserError
from tdmpc2_core.model import WorldModel, WorldModelConfig
from tdmpc2_core.planning import PlannerConfig

TASKS = {"task_dim": 4, "action_dims": (4, 2)}
SMALL = PlannerConfig(num_samples=16, num_elites=4, num_pi_trajs=2, iterations=1)


def test_wrong_lengths_of_model_inputs() -> None:
    model = small_model(episodic=True)
    z, action = torch.zeros(3, 16), torch.zeros(3, 4)
    for call, text in (
        (lambda: model.encode(torch.zeros(3, 8)), r"obs has shape \(3, 8\), must be \(..., 9\)"),
        (lambda: model.next(torch.zeros(3, 15), action), r"z has shape \(3, 15\), must be \(..., 16\)"),
        (lambda: model.reward(z, torch.zeros(3, 5)), r"action has shape \(3, 5\), must be \(..., 4\)"),
        (lambda: model.q_values(z, torch.zeros(())), r"action has shape \(\), must be"),
        (lambda: model.policy(torch.zeros(17)), r"z has shape \(17,\)"),
    ):
        with pytest.raises(UserError, match=text):
            call()
    pixels = WorldModel(WorldModelConfig(9, 2, obs_kind="pixels", num_channels=4, latent_dim=64, mlp_dim=8))
    with pytest.raises(UserError, match=r"must be \(..., 9, 64, 64\)"):
        pixels.encode(torch.zeros(9, 84, 84))


def test_observations_that_cannot_be_planned_on() -> None:
    agent = Agent(small_model(), SMALL)
    for bad in (np.nan, np.inf, -np.inf):
        obs = np.zeros((2, 9), dtype=np.float32)
        obs[1, 3] = bad
        with pytest.raises(ObservationError, match="observation entry 3 is .*, must be finite"):
            agent.act(obs)
    with pytest.raises(ObservationError, match=r"shape \(2, 8\), must be \(robots, 9\)"):
        agent.act(np.zeros((2, 8), dtype=np.float32))


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (None, "has 2 tasks; give the task index"),
        ([0], r"of shape \(1,\), must be integers \(2,\)"),
        ([0.5, 1.0], "is float64 of shape"),
        ([0, 2], r"must lie in 0..1"),
        ([-1, 0], r"must lie in 0..1"),
    ],
)
def test_task_indices(task: list[float] | None, text: str) -> None:
    agent = Agent(small_model(**TASKS), SMALL)
    with pytest.raises(ObservationError, match=text):
        agent.act(np.zeros((2, 9), dtype=np.float32), task=None if task is None else np.array(task))


def test_a_bundle_whose_sizes_would_need_all_memory_is_refused_at_once() -> None:
    model = small_model()
    huge = WorldModelConfig(9, 4, latent_dim=8 * 10**6, mlp_dim=10**6, num_enc_layers=2)
    with pytest.raises(UserError, match="the model configuration needs one of shape"):
        Bundle(model.state_dict(), huge, SMALL, 0.9, 1.0).build_model()
    deep = WorldModelConfig(9, 4, num_enc_layers=10**9)
    with pytest.raises(UserError, match="1000000000 encoder layers but"):
        Bundle(model.state_dict(), deep, SMALL, 0.9, 1.0).build_model()


def test_official_file_without_a_network() -> None:
    state = torch.load(SHIPPED / "tiny_episodic_5q.pt", weights_only=True)["model"]
    for part in ("_dynamics", "_reward", "_pi"):
        rest = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and not k.startswith(part)}
        with pytest.raises(UserError, match=f"lacks {part}.2.weight"):
            to_current(rest, "file.pt")


@pytest.mark.parametrize("task", ["mw-pusch", "mt30", "walker-wak", "quadruped"])
def test_training_on_a_task_that_is_not_there_names_tasks(task, capsys, tmp_path) -> None:
    assert cli.main(["train", f"task={task}", f"out={tmp_path / 'run'}"]) == 2
    message = capsys.readouterr().err
    assert f"no benchmark task '{task}'" in message and "`tdmpc2 tasks` lists all" in message
    assert "humanoid," not in message and not (tmp_path / "run").exists()
