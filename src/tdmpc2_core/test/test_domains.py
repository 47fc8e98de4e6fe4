"""The published tasks and Gymnasium's environments: names, sizes, protocol, rewards, a run of each domain."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tdmpc2_core import cli
from tdmpc2_core.checkpoint.published_tasks import MT30, MT80, published_task
from tdmpc2_core.envs import dmcontrol
from tdmpc2_core.envs.registry import DOMAINS, env_spec, make_env

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra gymnasium (gymnasium)")
needs_dmcontrol = pytest.mark.skipif(
    not any(domain.name == "DMControl" and domain.status == "runnable" for domain in DOMAINS),
    reason="needs the extra dmcontrol (dm_control)",
)

MINE = """
import gymnasium, numpy as np
from gymnasium.spaces import Box, Dict

class Ball(gymnasium.Env):
    observation_space = Dict({"where": Box(-9, 9, (2,)), "fast": Box(-9, 9, (1,))})
    action_space = Box(-3.0, 5.0, (1, 2))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where = self.np_random.uniform(-1, 1, 2)
        return self._seen(), {}

    def _seen(self):
        return {"where": self.where.astype("f"), "fast": np.array([7.0], "f")}

    def step(self, action):
        self.got = action
        return self._seen(), float(action.sum()), bool(action[0, 1] > 4.9), False, {}

class Discrete(Ball):
    action_space = gymnasium.spaces.Discrete(3)

number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_envs.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine_envs", None)


def test_the_104_published_tasks_are_known():
    counts = {domain.name: len(domain.tasks) for domain in DOMAINS}
    assert counts == {"DMControl": 39, "Meta-World": 50, "MyoSuite": 10, "ManiSkill": 5}
    names = [task for domain in DOMAINS for task in domain.tasks]
    assert len(set(names)) == 104 and set(MT80) <= set(names) and MT80[:30] == MT30 and len(MT80) == 80


@needs_dmcontrol
@pytest.mark.parametrize("task", dmcontrol.CUSTOM)
def test_sizes_of_the_custom_tasks_are_the_published_ones(task):
    spec, published = env_spec(task), published_task(task)
    assert (spec.observation_dim, spec.action_dim) == (published.obs_dim, published.action_dim)
    assert (spec.episode_length, spec.control_period) == (500, pytest.approx(published.control_period))


def _physics(env):
    return env._env.physics


@needs_dmcontrol
def test_custom_rewards_follow_the_paper():
    """States with a known reward: at the bound it is whole, at the margin what the paper names."""
    pole = make_env("pendulum-spin", 1)
    pole.reset()
    for speed, reward in ((9.0, 1.0), (-9.5, 1.0), (4.5, 0.5), (2.25, 0.25), (0.0, 0.0)):
        _physics(pole).data.qvel[0] = speed
        assert pole._env.task.get_reward(_physics(pole)) == pytest.approx(reward, abs=1e-6)

    runner = make_env("cheetah-run-backwards", 1)
    runner.reset()
    for speed, reward in ((-8.0, 1.0), (-4.0, 0.5), (0.0, 0.0), (5.0, 0.0)):
        _physics(runner).data.qvel[:] = 0.0
        _physics(runner).data.qvel[0] = speed
        _physics(runner).forward()
        assert runner._env.task.get_reward(_physics(runner)) == pytest.approx(reward, abs=1e-6)

    cup = make_env("cup-spin", 1)
    cup.reset()
    _physics(cup).data.qpos[:] = (0.0, 0.0, 0.0, 0.6)  # the ball 0.25 m or more from the cup's middle
    _physics(cup).data.qvel[:] = (0.0, 0.0, 3.0, 0.0)
    _physics(cup).forward()
    away = float(np.linalg.norm(_physics(cup).ball_to_target()))
    far = 1.0 if away >= 0.5 else max(0.0, 1.0 - 0.5 * (0.5 - away) / 0.25) if away >= 0.0 else 0.0
    assert cup._env.task.get_reward(_physics(cup)) == pytest.approx((far + 2 * 0.5) / 3, abs=1e-3)


@needs_dmcontrol
def test_walking_backwards_is_rewarded_and_forwards_is_not():
    env = make_env("walker-walk-backwards", 1)
    env.reset()
    physics = _physics(env)
    physics.data.qpos[:] = 0.0  # upright, standing
    rewards = {}
    for speed in (-1.0, 1.0):
        physics.data.qvel[:] = 0.0
        physics.named.data.qvel["rootx"] = speed
        physics.forward()
        rewards[speed] = env._env.task.get_reward(physics)
    stand = (3 * 1.0 + (1 + physics.torso_upright()) / 2) / 4
    assert rewards[-1.0] == pytest.approx(stand, rel=0.02) and rewards[1.0] == pytest.approx(
        stand / 6, rel=0.02
    )


@needs_dmcontrol
def test_nine_of_ten_episodes_of_cup_spin_begin_in_the_cup_and_the_three_links_reach_as_far_as_two():
    cup = make_env("cup-spin", 0)
    inside = 0
    for _ in range(100):
        cup.reset()
        inside += bool(_physics(cup).in_target())
    assert 80 <= inside <= 98
    arms = {}
    for task in ("reacher-easy", "reacher-three-easy"):
        arm = make_env(task, 0)
        arm.reset()
        _physics(arm).data.qpos[:] = 0.0
        _physics(arm).forward()
        arms[task] = _physics(arm).named.data.geom_xpos["finger", 0]
    assert arms["reacher-three-easy"] == pytest.approx(arms["reacher-easy"], abs=1e-9)


def test_an_id_of_gymnasium_is_stepped_as_gymnasium_does():
    env, reference = make_env("gym:Pendulum-v1", seed=5), gymnasium.make("Pendulum-v1")
    assert (env.spec.observation_dim, env.spec.action_dim, env.spec.episode_length) == (3, 1, 200)
    np.testing.assert_allclose(env.reset(), reference.reset(seed=5)[0], rtol=1e-6)
    rng = np.random.default_rng(0)
    for step in range(1, 201):
        action = rng.uniform(-1, 1, 1)
        expected = reference.step((2.0 * action).astype(np.float32))
        result = env.step(action)
        np.testing.assert_allclose(result.observation, expected[0], rtol=1e-5, atol=1e-6)
        assert result.reward == pytest.approx(expected[1], rel=1e-5)
        assert result.truncated == (step == 200) and not result.terminated


def test_an_environment_of_ones_own_has_its_bounds_dictionaries_and_ends(mine):
    env = make_env("mine_envs:Ball", seed=1)
    assert (env.spec.observation_dim, env.spec.action_dim, env.spec.episode_length) == (3, 2, 1000)
    first = env.reset()
    assert first.shape == (3,) and first.dtype == np.float32 and 7.0 in first
    result = env.step(np.array([-1.0, 0.0]))
    np.testing.assert_allclose(env._env.got, [[-3.0, 1.0]])
    assert result.reward == pytest.approx(-2.0) and not result.terminated
    assert env.step(np.array([0.0, 1.0])).terminated


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("mine_envs:Discrete", "needs a Box with finite bounds"),
        ("mine_envs:number", "a class or function is needed"),
        ("mine_envs:Nothing", "has no attribute 'Nothing'"),
        ("no_such_module:Env", "No module named 'no_such_module'"),
        ("gym:Pendulom-v1", "Did you mean: `Pendulum`"),
        ("mw-pushh", "did you mean 'mw-push'"),
        ("turn-faucet", "not supported"),
    ],
)
def test_a_task_that_cannot_be_made_is_one_sentence(mine, capsys, task, sentence):
    assert cli.main(["train", f"task={task}"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (mine / "runs").exists()


def _runnable(name: str) -> str:
    status = next(domain.status for domain in DOMAINS if domain.name == name)
    if status != "runnable":
        pytest.skip(f"{name} {status}")
    return name


@pytest.mark.parametrize(
    ("domain", "task", "success"),
    [
        ("DMControl", "pendulum-spin", False),
        ("Meta-World", "mw-reach", True),
        ("MyoSuite", "myo-reach", True),
        ("own", "mine_envs:Ball", False),
    ],
)
def test_a_task_of_every_domain_trains_goes_on_and_is_evaluated(mine, capsys, domain, task, success):
    if domain != "own":
        _runnable(domain)
    spec = env_spec(task)
    if success:
        assert (spec.observation_dim, spec.action_dim, spec.episode_length) == {
            "mw-reach": (39, 4, 100),
            "myo-reach": (115, 39, 100),
        }[task]
    short = ["eval_every=100000", "random_steps=120", "num_envs=2", "learner.batch_size=16", "log_every=60"]
    command = ["train", f"task={task}", "out=run", *short]
    assert cli.main([*command, "steps=130"]) == 0
    assert cli.main([*command, "steps=140"]) == 0
    assert cli.main(["eval", "run/checkpoint", "--episodes", "1", "--task", task, "--planner", "policy"]) == 0
    said = capsys.readouterr().out
    assert "return" in said and ("success" in said) == success
    if domain == "own":
        assert cli.main(["eval", "run/checkpoint", "--episodes", "1"]) == 2
        assert "--task mine_envs:Ball" in capsys.readouterr().err


def test_the_list_of_tasks_says_what_runs(capsys):
    assert cli.main(["tasks"]) == 0
    said = capsys.readouterr().out
    assert "DMControl: 39 tasks" in said and "ManiSkill: 5 tasks, not supported" in said
    assert cli.main(["tasks", "walker-run"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "walker-run",
        "walker-run-backwards",
    ]


def test_the_tutorial_of_ones_own_environment_runs(tmp_path):
    """Every command and program of the page but the installation, with fewer steps."""
    page = (Path(__file__).parents[3] / "docs/tutorials/gymnasium.md").read_text("utf-8")
    environment, program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pointmass.py").write_text(environment)
    ran = 0
    for command in [*re.findall(r"^tdmpc2 .*$", page, re.MULTILINE), "program"]:
        words = shlex.split(command)[1:]
        if "eval" in words:
            words += ["--episodes", "2"]
        elif words:
            words += ["steps=420", "eval_every=420", "eval_episodes=1", "learner.batch_size=16"]
        arguments = ["-c", program] if command == "program" else ["-m", "tdmpc2_core.cli", *words]
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "return" in done.stdout or "train" in words
        ran += 1
    assert ran == 4
