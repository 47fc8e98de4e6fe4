"""The student: targets from what a simulator knows, the critic of the policy that acts, and its runs."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.branches import BranchBuffer, Branches, branch_error, predicted_worth
from tdmpc2_core.learning.expert import (
    Critic,
    CriticConfig,
    CriticLearner,
    Experience,
    ExpertConfig,
    generalised_advantages,
)
from tdmpc2_core.learning.learner import Learner, LearnerConfig, PrivilegedTargets
from tdmpc2_core.learning.replay import ReplayBuffer
from tdmpc2_core.model import WorldModel, WorldModelConfig, world_model_config
from tdmpc2_core.model.encoder import ObservationNormaliser
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.train.expert import ExpertRunConfig, ExpertTrainer, load_expert
from tdmpc2_core.train.student import BranchingConfig, Collector, StudentConfig, StudentTrainer

OBS, ACT, P = 5, 2, 4


def experience(steps: int, robots: int, seed: int = 1) -> Experience:
    g = torch.Generator().manual_seed(seed)
    names = ("log_prob", "value", "reward", "timeout")
    nothing = torch.zeros(steps, robots, dtype=torch.bool)
    return Experience(
        observation=torch.randn(steps, robots, P, generator=g),
        action=torch.randn(steps, robots, ACT, generator=g),
        terminated=nothing,
        truncated=nothing,
        last_value=torch.randn(robots, generator=g),
        **{name: torch.randn(steps, robots, generator=g) for name in names},
    )


def test_traces_end_before_an_action_that_was_not_the_policys() -> None:
    data, followed = experience(5, 1), torch.tensor([[True], [True], [False], [True], [True]])
    found = generalised_advantages(data, 0.9, 0.8, followed) + data.value
    value = torch.cat([data.value, data.last_value[None]])
    one_step = data.reward + 0.9 * value[1:]
    torch.testing.assert_close(found[1], one_step[1])  # the next action is not the policy's
    torch.testing.assert_close(found[4], one_step[4])
    torch.testing.assert_close(found[0], data.reward[0] + 0.9 * (0.2 * value[1] + 0.8 * found[1]))
    torch.testing.assert_close(found[3], data.reward[3] + 0.9 * (0.2 * value[4] + 0.8 * found[4]))


def test_the_critic_learns_the_value_of_the_policy_that_acts() -> None:
    """Reward 1 a decision without noise is worth 1 / (1 - 0.5); disturbed decisions do not count."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    critic = Critic(ObservationNormaliser(P, False), P, (16,))
    learner = CriticLearner(critic, CriticConfig(discount=0.5, lr=3e-3), generator)
    for seed in range(150):
        data = experience(8, 32, seed)
        followed = torch.rand(8, 32, generator=generator) < 0.7
        with torch.no_grad():
            known = data._replace(
                value=critic(data.observation),
                last_value=critic(torch.randn(32, P, generator=generator)),
                reward=torch.where(followed, 1.0, -9.0),
            )
        learner.update(known, followed)
    with torch.no_grad():
        found = critic(torch.randn(256, P, generator=generator))
    assert abs(float(found.mean()) - 2.0) < 0.1 and found.std() < 0.2


def test_the_critic_is_left_alone_where_nothing_was_the_policys() -> None:
    critic = Critic(ObservationNormaliser(P, False), P, (16,))
    learner = CriticLearner(critic, CriticConfig(), torch.Generator().manual_seed(3))
    followed = torch.zeros(4, 3, dtype=torch.bool)
    followed[0, 0] = True
    before = [p.clone() for p in critic.state_dict().values()]
    assert learner.update(experience(4, 3), followed) == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, critic.state_dict().values(), strict=True))


def test_decisions_of_all_lanes_at_once_equal_those_one_by_one() -> None:
    rng = np.random.default_rng(0)
    one, many = ReplayBuffer(3, 12, OBS, ACT), ReplayBuffer(3, 12, OBS, ACT, privileged_dim=P)

    def rows(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape)).float()

    for _ in range(20):
        observed, action, reward, mean = rows(3, OBS), rows(3, ACT), rows(3), rows(3, ACT)
        ended = torch.from_numpy(rng.random(3) < 0.2)
        many.add_step(observed, action, reward, ended, mean, torch.ones(3, ACT), rows(3, P))
        for lane in range(3):
            parts = observed[lane].numpy(), action[lane].numpy(), float(reward[lane]), bool(ended[lane])
            one.add(lane, *parts, mean[lane].numpy(), np.ones(ACT))
        if ended.any():
            lanes, final = np.flatnonzero(ended), rows(int(ended.sum()), OBS)
            many.close_lanes(lanes, final, rows(len(lanes), P))
            for lane, last in zip(lanes, final.numpy(), strict=True):
                one.close(int(lane), last)
    for buffer in (one, many):
        buffer.generator.manual_seed(7)
    plain, batch = one.sample(200, 3), many.sample(200, 3)
    for name in ("obs", "action", "reward", "terminated", "valid", "plan_mean", "has_plan"):
        assert torch.equal(getattr(plain, name), getattr(batch, name)), name
    assert plain.privileged is None and batch.privileged is not None and batch.privileged.shape == (4, 200, P)


def learner_and_batch() -> tuple[Learner, Batch]:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    sizes = {"latent_dim": 16, "enc_dim": 16, "mlp_dim": 16, "num_q": 2, "dropout": 0.0}
    model = WorldModel(WorldModelConfig(OBS, ACT, **sizes, value_range=(-20.0, 20.0), readings=("x",) * P), g)
    privileged = PrivilegedTargets(lambda x: x.sum(-1), lambda x: x.tanh(), 1.0)
    config = LearnerConfig(horizon=3, batch_size=6, discount=0.9, lr=3e-3)
    flat = (3, 6, 1)
    batch = Batch(
        obs=torch.randn(4, 6, OBS, generator=g),
        action=torch.randn(3, 6, ACT, generator=g).tanh(),
        reward=torch.randn(*flat, generator=g),
        terminated=(torch.rand(flat, generator=g) < 0.3).float(),
        valid=torch.ones(flat),
        privileged=torch.randn(4, 6, P, generator=g),
    )
    return Learner(model, config, g, privileged=privileged), batch


def test_values_come_from_what_the_simulator_knows() -> None:
    learner, batch = learner_and_batch()
    _, target = learner.targets(batch, learner.draw(6))
    assert batch.privileged is not None
    known = batch.privileged[1:].sum(-1, keepdim=True)
    torch.testing.assert_close(target, batch.reward + 0.9 * (1.0 - batch.terminated) * known)


def test_latents_learn_to_tell_the_state() -> None:
    learner, batch = learner_and_batch()
    errors = [float(learner.update(batch)["state_error"]) for _ in range(300)]
    assert errors[-1] < 0.5 * errors[0]
    with pytest.raises(ValueError, match="field privileged"):
        learner.update(replace(batch, privileged=None))


def branches(worth: torch.Tensor) -> Branches:
    g = torch.Generator().manual_seed(8)
    groups, count = worth.shape
    return Branches(
        torch.randn(groups, OBS, generator=g), torch.rand(groups, count, 3, ACT, generator=g) * 2 - 1, worth
    )


def test_what_is_learned_of_branches_is_their_difference() -> None:
    learner, batch = learner_and_batch()
    some = branches(torch.zeros(4, 5))
    with torch.no_grad():
        said = predicted_worth(learner.model, some.obs, some.action, 0.9)
        other = said + 100.0 * torch.randn(4, 1, generator=torch.Generator().manual_seed(3))
        assert float(branch_error(learner.model, some._replace(worth=other), 0.9)) < 1e-6
    wanted = some._replace(worth=some.action[:, :, 0, 0] - some.action[:, :, 1, 1] + 50.0)
    errors = [float(learner.update(batch, branches=wanted)["branch_error"]) for _ in range(250)]
    assert errors[-1] < 0.2 * errors[0]


def test_the_newest_branches_are_kept() -> None:
    buffer = BranchBuffer(6, (5, 3, ACT), OBS, torch.Generator().manual_seed(0))
    for worth in (1.0, 2.0, 3.0):
        buffer.add(branches(torch.full((4, 5), worth)))
    drawn = buffer.sample(200)
    assert len(buffer) == 6 and set(drawn.worth.unique().tolist()) == {2.0, 3.0}
    assert drawn.action.shape == (200, 5, 3, ACT)


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expert")
    small = ExpertConfig(hidden=(32,), decisions=10)
    ExpertTrainer(ExpertRunConfig(out=folder, robots=4, decisions=400, threads=1, expert=small)).train()
    return folder


def settings(folder: Path, expert: Path) -> list[str]:
    small = "robots=4 decisions=8 warm_up=64 updates_per_cycle=2 updates=60 model_size=tiny threads=1"
    often = "checkpoint_every=2 eval_every=1000 learner.batch_size=8 learner.horizon=3 capacity=4000"
    few = "branches.count=2 branches.decisions=2"
    return [f"out={folder}", f"expert={expert}", *small.split(), *often.split(), *few.split()]


def test_a_killed_run_goes_on_and_its_bundle_drives_the_robot(tmp_path: Path, expert: Path) -> None:
    command = [sys.executable, "-m", "tdmpc2_core.cli", "student", *settings(tmp_path, expert)]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "checkpoint" / "learner.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, env=os.environ, check=True, capture_output=True, timeout=150)
    agent = Agent.load(tmp_path / "checkpoint")
    assert agent.provenance["updates"] == 60 and agent.provenance["resumes"] == 1
    assert agent.discount == 0.97 and str(tmp_path) not in str(agent.provenance)
    low, high = agent.model.config.value_range
    assert low < high and agent.model.config.reward_range
    robot = agent.embodiment
    assert robot is not None and robot.name == "quadruped"
    action = agent.act(np.zeros((1, robot.observation_dim), np.float32), evaluate=True).action
    assert np.isfinite(action).all()


def test_branches_leave_the_robots_where_they_were_and_are_worth_what_they_earn(expert: Path) -> None:
    robot = Embodiment.load("quadruped")
    config = StudentConfig(robots=4, threads=1, branches=BranchingConfig(count=2, decisions=3))
    known = load_expert(expert, robot)
    critic = Critic(known.normaliser, known.observation_dim, (8,))
    model = WorldModel(world_model_config("tiny", robot.observation_dim, robot.action_dim)).eval()
    collector = Collector(config, robot, known, critic, seed=3)
    plain = BatchEnv(robot, 4, 3)
    observed = plain.reset()
    found = collector.branch(model)
    starts = [int((observed == one.numpy()).all(1).argmax()) for one in found.obs]
    worth = np.zeros(4)
    for t in range(3):
        with torch.no_grad():
            action = model.policy(model.encode(torch.from_numpy(observed))).mean.numpy()
        np.testing.assert_allclose(found.action[:, 0, t], action[starts], atol=1e-6)
        step = plain.step(action)
        worth, observed = worth + 0.97**t * step.reward, step.observation
    with torch.no_grad():
        worth += 0.97**3 * critic(torch.from_numpy(step.privileged)).numpy()
    np.testing.assert_allclose(found.worth[:, 0], worth[starts], rtol=1e-5)
    assert (found.worth[:, 0] != found.worth[:, 1]).all()
    again = BatchEnv(robot, 4, 3)
    np.testing.assert_array_equal(again.reset(), collector.observed.numpy())
    still = np.zeros((4, robot.action_dim))
    np.testing.assert_array_equal(collector.env.step(still).observation, again.step(still).observation)


@pytest.mark.timeout(600)
def test_a_stopped_run_keeps_its_updates(tmp_path: Path, expert: Path) -> None:
    words = [*settings(tmp_path, expert), "checkpoint_every=1000000", "updates=1000000"]
    command = [sys.executable, "-m", "tdmpc2_core.cli", "student", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "train.csv").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130, said
    updates = Agent.load(tmp_path / "checkpoint").provenance["updates"]
    assert updates >= 200
    assert said.splitlines()[-1].startswith(f"tdmpc2: student stopped at update {updates};")
    more = [*words, f"updates={updates + 2}", "critic.lr=0.0007", "lr_end=0.2"]
    assert cli.main(["student", *more]) == 0
    state = torch.load(tmp_path / "checkpoint" / "learner.pt", weights_only=True)
    assert state["critic"]["optimiser"]["param_groups"][0]["lr"] == 0.0007
    assert state["progress"]["updates"] >= updates + 2 and state["level"].shape == (4,)


def test_an_expert_is_trained_first_where_there_is_none(tmp_path: Path) -> None:
    small = [text for text in settings(tmp_path, tmp_path) if not text.startswith("expert=")]
    command = [sys.executable, "-m", "tdmpc2_core.cli", "student", *small, "updates=2", "expert_decisions=1"]
    subprocess.run(command, env=os.environ, check=True, capture_output=True, timeout=150)
    assert (tmp_path / "expert" / "expert.safetensors").exists() and Agent.load(tmp_path / "checkpoint")
    with open(tmp_path / "expert" / "train.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 1


def test_more_branches_than_robots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"branches.count is 8, must be at most robots \(4\)"):
        StudentTrainer(StudentConfig(robots=4, out=tmp_path))


def test_an_expert_of_another_robot_is_refused(tmp_path: Path, expert: Path) -> None:
    with pytest.raises(UserError, match="another robot than arm"):
        StudentTrainer(StudentConfig(robot="arm", expert=expert, out=tmp_path))
