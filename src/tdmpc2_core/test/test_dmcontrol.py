"""DMControl tasks against dm_control itself, and what training and evaluation do with them."""

from dataclasses import replace

import numpy as np
import pytest

from tdmpc2_core import cli
from tdmpc2_core.envs.dmcontrol import TASKS, DMControlEnv
from tdmpc2_core.envs.registry import env_spec, make_env
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.train.train_config import TrainConfig, train_preset

suite = pytest.importorskip("dm_control.suite", reason="needs the extra dmcontrol (dm_control)")

# observation, action length and control period (ms) of the published setting: two control steps per decision
PUBLISHED = {
    "walker-walk": (24, 6, 50),
    "cup-catch": (8, 2, 40),
    "cartpole-swingup-sparse": (5, 1, 20),
    "finger-turn-hard": (12, 2, 40),
    "quadruped-run": (78, 12, 40),
    "fish-swim": (24, 5, 80),
}


@pytest.mark.parametrize(("task", "sizes"), PUBLISHED.items())
def test_sizes_and_times_are_the_published_ones(task, sizes):
    spec = env_spec(task)
    assert (spec.observation_dim, spec.action_dim, round(1e3 * spec.control_period)) == sizes
    assert (spec.name, spec.episode_length, spec.terminates, spec.embodiment) == (task, 500, False, None)


@pytest.mark.parametrize(
    ("task", "stock"), [("cup-catch", "ball_in_cup catch"), ("walker-walk", "walker walk")]
)
def test_an_episode_is_that_of_dm_control_with_every_action_held_twice(task, stock):
    env, reference = make_env(task, seed=3), suite.load(*stock.split(), task_kwargs={"random": 3})
    rng = np.random.default_rng(0)
    expected = reference.reset()
    observation = env.reset()
    for step in range(1, 501):
        flat = np.concatenate([np.ravel(entry) for entry in expected.observation.values()])
        np.testing.assert_allclose(observation, flat, rtol=1e-5, atol=1e-5)
        assert observation.dtype == np.float32
        action = rng.uniform(-1.0, 1.0, env.spec.action_dim)
        rewards = []
        for _ in range(2):
            expected = reference.step(action)
            rewards.append(expected.reward)
        result = env.step(action)
        assert result.reward == pytest.approx(sum(rewards), abs=1e-6)
        assert not result.terminated
        assert result.truncated == expected.last() == (step == 500)
        observation = result.observation


def test_actions_are_clipped_and_seeds_decide():
    def first_states(seed: int, action: float) -> np.ndarray:
        env = make_env("cartpole-swingup", seed)
        return np.stack([env.reset(), env.step(np.array([action])).observation])

    np.testing.assert_array_equal(first_states(1, 1.0), first_states(1, 7.0))
    assert not np.array_equal(first_states(1, 1.0), first_states(2, 1.0))


def test_every_name_is_a_task_of_the_suite():
    stock = {f"{domain} {task}" for domain, task in suite.ALL_TASKS}
    for name in TASKS:
        domain, task = name.replace("-", "_").split("_", 1)
        assert f"{'ball_in_cup' if domain == 'cup' else domain} {task}" in stock
    assert len(TASKS) == 28


def test_robots_and_tasks_come_from_one_registry():
    robot = Embodiment.load("quadruped")
    env = make_env("quadruped", seed=0)
    assert isinstance(env, RobotEnv) and env.spec == env_spec(robot) and env.spec.terminates
    assert env.reset().shape == (env.spec.observation_dim,)
    assert isinstance(make_env("cup-catch"), DMControlEnv)
    with pytest.raises(UserError, match="did you mean 'walker-walk'"):
        make_env("walker-wlk")
    with pytest.raises(UserError, match="no robot 'zzz'"):
        make_env("zzz")
    with pytest.raises(UserError, match="did you mean 'dog-run'"):
        make_env("dog-runn")


def test_a_run_has_a_robot_or_a_task():
    assert TrainConfig().robot == "quadruped" and TrainConfig().environment == "quadruped"
    assert TrainConfig(task="cup-catch").robot is None
    with pytest.raises(ValueError, match="give one of the two"):
        TrainConfig(robot="quadruped", task="cup-catch")
    with pytest.raises(UserError, match="one of the two"):
        train_preset(None, robot="quadruped", task="cup-catch")


def test_presets_of_a_task():
    small = train_preset(None, task="cup-catch")
    assert small == train_preset("dmcontrol", task="cup-catch")
    assert str(small.folder) == "runs/cup-catch" and small.demonstration_steps == 0
    assert (small.learner.n_step, small.learner.discount, small.random_steps) == (3, 0.99, 2000)
    paper = train_preset("paper", task="humanoid-walk")
    assert (paper.random_steps, paper.learner.discount, paper.planner.iterations) == (2500, 0.99, 8)


def test_demonstrations_need_a_robot(tmp_path, capsys):
    settings = ["task=cup-catch", f"out={tmp_path}", "demonstration_steps=10"]
    assert cli.main(["train", *settings]) == 2
    assert "demonstration_steps=0" in capsys.readouterr().err


def test_without_dm_control_the_sentence_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(UserError, match=r"tdmpc2-core\[dmcontrol\]"):
        make_env("cup-catch")
    assert replace(TrainConfig(), robot="quadruped").environment == "quadruped"
