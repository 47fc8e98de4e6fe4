"""Fine-tuning on recorded episodes: each mode, the gate, unknown rewards, going on, refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from planning_support import small_model
from small_robot import small_robot

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.cli import main
from tdmpc2_core.config import apply_overrides
from tdmpc2_core.data.episodes import Episode, EpisodeStore
from tdmpc2_core.data.held_out import split_by_time
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.dynamics import LatentEpisodes
from tdmpc2_core.model.world_model import with_residual
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.scoring.prediction import predict, value_calibration
from tdmpc2_core.train.finetune import FineTuneConfig, fine_tune, run_folder

ROBOT = small_robot()
SMALL = PlannerConfig(num_samples=24, num_elites=4, num_pi_trajs=4, iterations=2)
FAST = apply_overrides(
    FineTuneConfig(mode="dynamics", updates=60, batch_size=64, mix_sim=0.0, check_every=20, max_shift=2.0),
    ["dynamics.lr=0.003", "dynamics.horizon=3", "dynamics.residual_dim=16"],
)


def episode(random: np.random.Generator, steps: int = 60, dim: int = ROBOT.observation_dim) -> Episode:
    """A robot whose observation follows its action linearly; the reward is the first entry."""
    mixing = np.random.default_rng(7).normal(size=(ROBOT.action_dim, dim)) * 0.3
    action = random.uniform(-1, 1, (steps, ROBOT.action_dim)).astype(np.float32)
    observation = np.zeros((steps + 1, dim), np.float32)
    for k in range(steps):
        observation[k + 1] = 0.8 * observation[k] + action[k] @ mixing
    zeros, flags = np.zeros_like(action), np.zeros(steps, bool)
    reward, value = observation[1:, 0].copy(), np.full(steps, np.nan, np.float32)
    return Episode(observation, action, reward, flags, zeros, zeros, flags, value, True)


@pytest.fixture
def place(tmp_path):
    """A bundle and a store of eleven episodes."""
    model = small_model(ROBOT.observation_dim, ROBOT.action_dim, episodic=True)
    Agent(model, SMALL, 0.97, ROBOT).save(tmp_path / "base")
    store, random = EpisodeStore(tmp_path / "episodes"), np.random.default_rng(0)
    for _ in range(11):
        store.append(episode(random), source="test")
    return tmp_path


def unknown(place):
    """The same store without rewards."""
    store = EpisodeStore(place / "unknown")
    for one, _ in EpisodeStore(place / "episodes"):
        store.append(replace(one, reward=np.full_like(one.reward, np.nan)))
    return place / "unknown"


def open_loop(model, recorded: Episode, steps: int = 3) -> float:
    """Error of latents foretold `steps` decisions ahead, written out."""
    with torch.no_grad():
        z = model.encode(torch.from_numpy(recorded.observation))
        told = z[:-steps]
        for k in range(steps):
            told = model.next(told, torch.from_numpy(recorded.action[k : len(recorded) - steps + k + 1]))
        return float((told - z[steps:]).square().mean())


@pytest.mark.parametrize("mode", ["dynamics", "residual"])
def test_the_dynamics_learn_without_rewards_and_all_else_stays(place, mode):
    seen = []
    found = fine_tune(
        place / "base",
        [unknown(place)],
        place / "new",
        replace(FAST, mode=mode),
        lambda p: seen.append(p) or True,
    )
    assert found.improved and found.mode == mode and found.loss_after < 0.8 * found.loss_before
    assert seen[-1].stage == "checking"
    parent, agent = Agent.load(place / "base"), Agent.load(place / "new", embodiment=ROBOT)
    part = {"dynamics": "dynamics.", "residual": "residual_head."}[mode]
    for name, value in parent.model.state_dict().items():
        assert name.startswith(part) or torch.equal(value, agent.model.state_dict()[name]), name
    fresh = episode(np.random.default_rng(99))  # that neither learning nor judging has seen
    assert open_loop(agent.model, fresh) < 0.9 * open_loop(parent.model, fresh)
    tuned = agent.provenance["fine_tuned"]
    assert tuned["parent"]["sha256"] == manifest.digest((place / "base/bundle.json").read_bytes())
    assert tuned["known rewards"] == 0 and tuned["updates"] == found.updates
    assert tuned["after"]["open-loop error / variance"] == pytest.approx(found.loss_after)
    report = json.loads(found.report.read_text())
    assert report["written"] and report["before"]["value calibration"] == {}
    assert len(report["before"]["by decisions ahead"]["reward error"]) > 3


def test_everything_learns_and_rewards_are_foretold_better(place):
    config = apply_overrides(FAST, ["mode=full", "learner.lr=0.003", "updates=100"])
    found = fine_tune(place / "base", [place / "episodes"], place / "new", config)
    assert found.improved, found.reasons
    fresh = [episode(np.random.default_rng(99))]
    before, after = (predict(Agent.load(place / name).model, fresh) for name in ("base", "new"))
    assert np.nanmean(after.reward) < 0.8 * np.nanmean(before.reward)


def test_a_new_residual_changes_nothing_and_survives_the_bundle(tmp_path):
    model = small_model(ROBOT.observation_dim, ROBOT.action_dim)
    made = with_residual(model, 12)
    obs = torch.randn(5, ROBOT.observation_dim)
    acts = [
        Agent(m, SMALL, 0.97, ROBOT, seed=3).act(obs.numpy(), evaluate=True).action for m in (model, made)
    ]
    assert np.array_equal(*acts)
    with torch.no_grad():
        made.residual_head.layers[-1].weight.normal_()
    Agent(made, SMALL, 0.97, ROBOT).save(tmp_path / "b")
    again = Agent.load(tmp_path / "b").model
    z, action = model.encode(obs), torch.zeros(5, ROBOT.action_dim)
    assert torch.equal(again.next(z, action), made.next(z, action))
    assert not torch.allclose(made.next(z, action), model.next(z, action))
    assert main(["export", str(tmp_path / "b"), "--format", "official", "--out", str(tmp_path / "x.pt")]) == 2


def test_auto_tries_both_and_the_command_line_writes_the_better(place, capsys):
    words = ["finetune", "--bundle", str(place / "base"), "--out", str(place / "new"), "--mix-sim", "0"]
    words += ["--data", str(place / "episodes"), "updates=40", "batch_size=64", "dynamics.lr=0.003"]
    words += ["dynamics.horizon=3", "check_every=20", "max_shift=2"]
    assert main(words) == 0
    report = json.loads((run_folder(place / "new") / "report.json").read_text())
    verdicts = {name: made["verdict"] for name, made in report["modes"].items()}
    ranks = {name: (not v["reasons"], v["gain"]["mean"]) for name, v in verdicts.items()}
    assert set(ranks) == {"dynamics", "residual"} and report["chosen"] == max(ranks, key=ranks.get)
    assert (run_folder(place / "new") / "report.png").exists()
    assert main(words) == 2 and "exists already" in capsys.readouterr().err


def test_without_a_gain_nothing_is_written_and_the_exit_code_is_three(place, capsys):
    words = ["finetune", "--bundle", str(place / "base"), "--data", str(place / "episodes"), "--mix-sim=0"]
    words += ["--out", str(place / "a"), "--mode", "dynamics", "updates=1", "dynamics.lr=1e-12"]
    assert main(words) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert "did not fall beyond chance" in said and str(run_folder(place / "a")) in said
    assert not (place / "a").exists() and (run_folder(place / "a") / "report.json").exists()
    far = replace(FAST, max_shift=1e-9, updates=20)
    found = fine_tune(place / "base", [place / "episodes"], place / "b", far)
    assert not found.improved and "actions move" in found.reasons[0]


def test_a_run_that_was_interrupted_goes_on_to_the_same_result(place):
    whole = fine_tune(place / "base", [place / "episodes"], place / "whole", FAST)
    calls = []

    def interrupt(progress):
        calls.append(progress)
        raise KeyboardInterrupt

    slow = replace(FAST, updates=40)
    with pytest.raises(KeyboardInterrupt, match=r"stopped at update \d+; the same command goes on"):
        fine_tune(place / "base", [place / "episodes"], place / "cut", slow, interrupt)
    assert not (place / "cut").exists() and len(calls) == 1
    found = fine_tune(place / "base", [place / "episodes"], place / "cut", FAST)
    assert (found.updates, found.loss_after) == (whole.updates, whole.loss_after)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(place / "base", [place / "episodes"], place / "other", slow, interrupt)
    with pytest.raises(UserError, match="other data"):
        fine_tune(place / "base", [unknown(place)], place / "other", FAST)
    with pytest.raises(UserError, match=r"batch_size=64, not 32"):
        fine_tune(place / "base", [place / "episodes"], place / "other", replace(FAST, batch_size=32))


@pytest.mark.timeout(600)  # a process that shares busy cores
def test_a_process_that_is_told_to_end_stores_what_it_learned(place):
    words = ["--bundle", place / "base", "--data", place / "episodes", "--out", place / "new", "--mix-sim=0"]
    words += ["--mode=dynamics", "batch_size=16", "check_every=20", "patience=100000", "updates=1000000"]
    command = [sys.executable, "-m", "tdmpc2_core.cli", "finetune", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    kept = run_folder(place / "new") / "dynamics.pt"
    while not kept.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=240)[1].splitlines()[-1]
    assert process.returncode == 130 and "the same command goes on from there" in said
    assert torch.load(kept, weights_only=True)["updates"] == int(said.split()[5].rstrip(";"))
    assert not (place / "new").exists()


def test_it_ends_on_request_and_by_time(place):
    slow = replace(FAST, updates=10**6, patience=10**6, check_every=10**6)
    found = fine_tune(place / "base", [place / "episodes"], place / "a", slow, lambda progress: False)
    assert found.ended_by == "request" and 0 < found.updates < 10**6
    timed = replace(slow, max_seconds=0.5)
    found = fine_tune(place / "base", [place / "episodes"], place / "b", timed)
    assert found.ended_by == "time" and found.seconds < 60.0


def test_parts_of_a_recording_share_no_decision_and_lie_apart():
    random = np.random.default_rng(0)
    episodes = [episode(random, steps) for steps in (60, 333, 20, 700)]
    for k, one in enumerate(episodes):  # each action tells where it comes from
        one.action[:, 0], one.action[:, 1] = k, np.arange(len(one))
    split = split_by_time(episodes, 0.25, history=3)
    seen = {
        name: {tuple(row) for part in getattr(split, name) for row in part.action[:, :2]}
        for name in ("learn", "stop", "judge")
    }
    assert not seen["learn"] & seen["stop"] and not seen["learn"] & seen["judge"]
    assert not seen["stop"] & seen["judge"]
    for k, t in seen["stop"] | seen["judge"]:
        assert not {(k, t - d) for d in range(1, 4)} & seen["learn"] and (k, t + 1) not in seen["learn"]
    held = len(seen["stop"]) + len(seen["judge"])
    assert 0.2 < held / sum(map(len, episodes)) < 0.27


def test_measures_against_numbers_that_are_known():
    model = small_model(ROBOT.observation_dim, ROBOT.action_dim, episodic=True)
    one = episode(np.random.default_rng(1), 40)
    found = predict(model, [one, episode(np.random.default_rng(2), 6)])
    assert found.latent.shape == (2, 20) and np.isnan(found.latent[1, 6:]).all()
    assert found.latent[0, 2] == pytest.approx(open_loop(model, one), rel=1e-4)
    assert np.isnan(predict(model, [replace(one, reward=one.reward * np.nan)]).reward).all()
    with torch.no_grad():
        z = model.encode(torch.from_numpy(one.observation))
        value = model.q_values(z, model.policy(z).mean).mean(0).flatten().double().numpy()
    exact = replace(one, reward=(value[:-1] - 0.9 * value[1:]).astype(np.float32))
    assert value_calibration(model, [exact], 0.9)["rms"] < 1e-3
    off = replace(exact, reward=exact.reward - 1.0)
    assert value_calibration(model, [off], 0.9)["bias"] > 6.0


def test_windows_of_latents_stay_inside_their_episodes():
    model = small_model(ROBOT.observation_dim, ROBOT.action_dim)
    episodes = [episode(np.random.default_rng(k), steps) for k, steps in enumerate((5, 9))]
    data = LatentEpisodes(model, episodes, torch.Generator().manual_seed(0))
    windows = data.sample(200, 7)
    ends = model.encode(torch.from_numpy(np.stack([one.observation[-1] for one in episodes]))).detach()
    for column in range(200):
        inside = int(windows.valid[:, column].sum())
        assert (windows.valid[:inside, column] == 1).all() and 1 <= inside <= 7
        if inside < 7:
            last = windows.z[inside, column]
            assert min(float((last - end).abs().max()) for end in ends) < 1e-6


@pytest.mark.parametrize("what", ["missing", "bag", "other", "damaged", "output", "short", "simulation"])
def test_inputs_that_do_not_fit(place, what):
    data, output, config = place / "data", place / "new", FAST
    data.mkdir()
    if what == "bag":
        (data / "metadata.yaml").write_text("rosbag2_bagfile_information: {}\n")
    if what in ("other", "damaged", "short"):
        store = EpisodeStore(data)
        store.append(episode(np.random.default_rng(0), dim=3 if what == "other" else ROBOT.observation_dim))
    if what == "damaged":
        (data / "0000001.safetensors").write_bytes(b"no tensors")
    if what == "output":
        data = place / "episodes"
        output.mkdir()
    if what == "simulation":
        config = replace(FAST, mix_sim=0.5)
    said = {
        "missing": "holds no episodes",
        "bag": "is a rosbag2",
        "other": "same robot",
        "damaged": "not a readable episode",
        "output": "exists already",
        "short": "too few to tell a gain from chance",
        "simulation": "use --mix-sim 0",
    }[what]
    with pytest.raises(UserError, match=said):
        fine_tune(place / "base", [data], output, config)
    assert not run_folder(output).exists()
