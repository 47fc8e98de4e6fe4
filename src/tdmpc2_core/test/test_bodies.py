"""Several bodies, one agent: the share of a robot, bundles of several, from a recording to a driven robot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from several_bodies import BODIES, agent_of_bodies, bundle_of_bodies

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.checkpoint.bundle import load_bundle
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.model.architecture import world_model_config
from tdmpc2_core.model.world_model import WorldModel
from tdmpc2_core.robots import Embodiment

QUADRUPED, ARM = BODIES
FEW = ["robots=4", "decisions=400"]
SHORT = ["model_size=tiny", "learner.batch_size=32", "log_every=50", "eval_every=1000"]


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("changes", [{}, {"residual_dim": 16}, {"obs_dims": (), "normalise_obs": False}])
def test_a_robots_share_computes_what_the_whole_model_does_at_its_task(task: int, changes: dict) -> None:
    several = agent_of_bodies(**changes)
    whole, robot = several.model, BODIES[task]
    sizes = robot.observation_dim, robot.action_dim
    if not changes.get("obs_dims", True):  # the padding remains then
        sizes = whole.config.obs_dim, robot.action_dim
        alone = _share(several, task)
    else:
        alone = several.driving(robot, "here").model
    assert (alone.config.obs_dim, alone.config.action_dim, alone.config.num_tasks) == (*sizes, 0)
    draw = torch.Generator().manual_seed(task)
    seen = torch.zeros(6, whole.config.obs_dim)
    seen[:, : sizes[0]] = 3.0 + torch.randn(6, sizes[0], generator=draw)
    action = torch.zeros(6, whole.config.action_dim)
    action[:, : sizes[1]] = torch.rand(6, sizes[1], generator=draw) - 0.5
    noise = torch.randn(6, whole.config.action_dim, generator=draw)
    z, own = whole.encode(seen, task), alone.encode(seen[:, : sizes[0]])
    short, few = action[:, : sizes[1]], noise[:, : sizes[1]]
    pairs = [
        (own, z),
        (alone.next(own, short), whole.next(z, action, task)),
        (alone.reward(own, short), whole.reward(z, action, task)),
        (alone.q_values(own, short), whole.q_values(z, action, task)),
        (alone.q_values(own, short, target=True), whole.q_values(z, action, task, target=True)),
        (alone.policy(own, noise=few).action, whole.policy(z, task, noise).action[:, : sizes[1]]),
        (alone.policy(own).log_std, whole.policy(z, task).log_std[:, : sizes[1]]),
    ]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    assert not torch.allclose(z, whole.encode(seen, 1 - task), atol=1e-3)


def _share(agent: Agent, task: int) -> WorldModel:
    from tdmpc2_core.model.one_task import one_task
    from tdmpc2_core.model.world_model import build_model

    return build_model(*one_task(agent.model.config, agent.model.state_dict(), task), "share")


def test_every_task_has_the_statistics_of_its_own_observations() -> None:
    config = world_model_config(
        "tiny", 5, 2, normalise_obs=True, task_dim=4, action_dims=(2, 1), obs_dims=(5, 3)
    )
    model, rng = WorldModel(config), np.random.default_rng(0)
    task = rng.integers(0, 2, 64)
    seen = rng.normal(size=(30, 64, 5)) * (1.0 + 4.0 * task)[:, None] + 10.0 * task[:, None]
    seen[:, task == 1, 3:] = 0.0
    for row in torch.from_numpy(seen).float():
        model.normaliser.update(row, torch.from_numpy(task))
    for index in (0, 1):
        own = seen[:, task == index].reshape(-1, 5)
        np.testing.assert_allclose(model.normaliser.mean[index], own.mean(0), atol=1e-3)
        np.testing.assert_allclose(model.normaliser.variance[index], own.var(0), rtol=1e-3, atol=1e-6)
    found = model.normaliser(torch.from_numpy(seen[0]).float(), torch.from_numpy(task))
    assert abs(found[task == 1, :3].mean()) < 0.3 and bool((found[task == 1, 3:] == 0.0).all())


def test_a_bundle_of_several_bodies_gives_the_agent_of_the_robot_that_is_named(tmp_path: Path) -> None:
    path = bundle_of_bodies(tmp_path)
    whole = load_bundle(path)
    assert whole.bodies == BODIES and whole.embodiment is None and whole.tasks == ("quadruped", "arm")
    assert json.loads((path / "bundle.json").read_text())["version"] == 2
    safer = replace(ARM, safety=replace(ARM.safety, max_target_rate=0.5))
    agent = Agent.load(path, embodiment=safer)
    assert agent.embodiment is safer and agent.discount == 0.9 and not agent.tasks and not agent.bodies
    seen = np.full((1, ARM.observation_dim), 3.0, np.float32)
    padded = np.zeros((1, whole.model_config.obs_dim), np.float32)
    padded[:, : ARM.observation_dim] = seen
    expected = Agent.of_bundle(whole).act(padded, evaluate=True, task=np.array([1])).action[:, :7]
    np.testing.assert_allclose(agent.act(seen, evaluate=True).action, expected, atol=1e-5)
    agent.save(tmp_path / "arm")  # from here on a bundle as any other, which older programs read
    assert json.loads((tmp_path / "arm/bundle.json").read_text())["version"] == 1
    assert load_bundle(tmp_path / "arm").embodiment == safer


def test_a_robot_that_a_bundle_does_not_drive_is_one_sentence(tmp_path: Path, capsys) -> None:
    path = bundle_of_bodies(tmp_path)
    with pytest.raises(UserError, match="does not know robot 'humanoid'; known: quadruped, arm"):
        Agent.load(path, embodiment=Embodiment.load("humanoid"))
    with pytest.raises(UserError, match="drives quadruped, arm; say which"):
        Agent.load(path)
    joints = (replace(ARM.joints[0], action_scale=0.5), *ARM.joints[1:])
    with pytest.raises(UserError, match="not the 'arm' given: .*action_scale is 0.035 in the checkpoint"):
        Agent.load(path, embodiment=replace(ARM, joints=joints))
    assert cli.main(["eval", str(path), "--robot", "humanoid"]) == 2
    assert cli.main(["eval", str(path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "known: quadruped, arm" in said[0] and "say which" in said[1]
    assert cli.main(["info", str(path)]) == 0
    page = capsys.readouterr().out
    assert "bodies      quadruped: 12 joints, 50 Hz" in page and "arm: 7 joints, 50 Hz" in page


def test_a_body_that_is_no_task_of_the_model_or_has_another_robots_files_is_refused(tmp_path: Path) -> None:
    path = bundle_of_bodies(tmp_path)
    content = manifest.read(path)
    manifest.write(path, content | {"tasks": ["quadruped", "crane"]})
    with pytest.raises(UserError, match="body 'arm' is no task of the model, or one of other sizes"):
        load_bundle(path)
    content["bodies"][1]["fingerprint"] = content["bodies"][0]["fingerprint"]
    manifest.write(path, content)
    with pytest.raises(UserError, match="the files of body 'arm' are of another robot"):
        load_bundle(path)


def test_shipped_bundles_are_of_the_first_version() -> None:
    for name in ("quadruped", "humanoid", "arm", "walker-walk"):
        text = (shipped_bundle(name) / "bundle.json").read_text()
        assert json.loads(text)["version"] == 1 and not load_bundle(shipped_bundle(name)).bodies


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a quadruped under its own bundle, and of an arm that another drives and its own bundle labels."""
    folder = tmp_path_factory.mktemp("data")
    assert cli.main(["collect", "robot=quadruped", f"out={folder / 'quadruped'}", *FEW]) == 0
    driver = [f"bundle={bundle_of_bodies(folder)}", "teacher=arm"]
    assert cli.main(["collect", "robot=arm", f"out={folder / 'arm'}", *driver, *FEW]) == 0
    return folder


def test_what_is_recorded_beside_a_decision_is_what_the_teacher_would_have_done(recorded: Path) -> None:
    assert Embodiment.load(recorded / "arm/embodiment") == ARM
    for robot, least in ((QUADRUPED, 0.01), (ARM, 0.2)):  # bursts of noise; another driver
        teacher, apart = Agent.load(robot.name, planner="policy"), []
        for episode, _ in EpisodeStore(recorded / robot.name / "episodes"):
            wanted = teacher.act(episode.observation[:-1], evaluate=True).action
            np.testing.assert_allclose(episode.plan_mean, wanted, atol=1e-5)
            apart.append(np.abs(episode.action - episode.plan_mean).mean())
        assert np.mean(apart) > least


def test_one_agent_learns_to_imitate_the_drivers_of_two_robots(recorded: Path, tmp_path: Path) -> None:
    data = f"data={recorded / 'quadruped'},{recorded / 'arm'}"
    command = ["pretrain", "--preset", "robots", data, f"out={tmp_path / 'run'}", *SHORT, "learner.lr=0.002"]
    assert cli.main([*command, "updates=1"]) == 0
    path = tmp_path / "run/checkpoint"
    before = [_distance(path, recorded, robot) for robot in BODIES]
    assert cli.main([*command, "updates=120"]) == 0
    after = [_distance(path, recorded, robot) for robot in BODIES]
    assert max(np.divide(after, before)) < 0.7, (before, after)
    assert load_bundle(path).bodies == BODIES
    words = ["eval", str(path), "--robot", "arm", "--episodes", "1", "--seconds", "2.5"]
    assert cli.main([*words, "--json", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["goals"] == 1
    assert cli.main([*command[:-4], "updates=200", "start=arm", "out=" + str(tmp_path / "other")]) == 2


def test_recordings_of_two_robots_of_one_name_are_refused(recorded: Path, tmp_path: Path, capsys) -> None:
    other = shutil.copytree(recorded / "arm", tmp_path / "arm")
    text = (other / "embodiment/embodiment.yaml").read_text()
    (other / "embodiment/embodiment.yaml").write_text(
        text.replace("action_scale: 0.045", "action_scale: 0.05")
    )
    words = ["pretrain", f"data={recorded / 'arm'},{other}", f"out={tmp_path / 'run'}"]
    assert cli.main(words) == 2 and not (tmp_path / "run").exists()
    assert "was recorded with another 'arm' than" in capsys.readouterr().err


def _distance(path: Path, recorded: Path, robot: Embodiment) -> float:
    """Mean distance of the bundle's prior from what the teacher would have done."""
    agent = Agent.load(path, embodiment=robot)
    apart = [
        np.abs(agent.act(episode.observation[:-1], evaluate=True).action - episode.plan_mean).mean()
        for episode, _ in EpisodeStore(recorded / robot.name / "episodes")
    ]
    return float(np.mean(apart))


def test_a_recording_that_is_stopped_keeps_its_episodes_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "arm"
    words = [sys.executable, "-m", "tdmpc2_core.cli", "collect", "robot=arm", f"out={out}", "robots=2"]
    process = subprocess.Popen([*words, "decisions=10000000"], stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120.0
    while not (out / "embodiment").is_dir():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120.0)
    assert process.returncode == 130 and "the same command adds what is missing" in said
    kept = [len(episode) for episode, _ in EpisodeStore(out / "episodes")]
    assert len(kept) % 2 == 0 and kept[-1] == kept[-2]  # both that were in progress ended there
    assert cli.main(["collect", "robot=arm", f"out={out}", "robots=2", f"decisions={sum(kept) + 40}"]) == 0
    assert sum(len(episode) for episode, _ in EpisodeStore(out / "episodes")) == sum(kept) + 40
