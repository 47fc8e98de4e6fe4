"""Training as a user runs it: a real process, killed with a real signal, resumed, with logs that show it."""

import csv
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planning_support import small_model
from train_support import events, start, wait_for_checkpoints

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.config import apply_overrides
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.evaluation import PoseEvaluation, evaluate_robot
from tdmpc2_core.train.expert import ExpertRunConfig
from tdmpc2_core.train.online import OnlineTrainer
from tdmpc2_core.train.student import StudentConfig
from tdmpc2_core.train.train_config import TrainConfig, train_preset

SETTINGS = [
    "steps=100000",
    "num_envs=2",
    "demonstration_steps=600",
    "pretrain_updates=3",
    "updates_per_step=0.02",
    "checkpoint_every=100",
    "log_every=100",
    "eval_every=200",
    "eval_seconds=0.2",
    "learner.batch_size=16",
    "planner.num_samples=32",
    "planner.num_pi_trajs=8",
]


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    process = start(folder, *SETTINGS)
    wait_for_checkpoints(process, folder, 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return folder


def test_killed_run_goes_on_from_its_last_checkpoint_with_all_its_episodes(killed_run):
    before, demonstrations = events(killed_run), len(EpisodeStore(killed_run / "demonstrations"))
    episodes = len(EpisodeStore(killed_run / "episodes"))
    last = max(step for step, what in before if "checkpoint" in what)
    process = start(killed_run, *SETTINGS, f"steps={last + 150}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    after = events(killed_run)
    assert after[: len(before)] == before, "the log keeps what it had"
    step, what = after[len(before)]
    assert step == last and what.startswith("resumed at update")
    assert f"with {episodes} episodes" in what
    assert after[-1] == (last + 150, after[-1][1]) and "finished" in after[-1][1]
    assert len(EpisodeStore(killed_run / "demonstrations")) == demonstrations, "nothing is demonstrated twice"
    with open(killed_run / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)
    assert all(float(row["total_loss"]) > 0 for row in rows if row["total_loss"])
    agent = Agent.load(killed_run / "checkpoint")
    assert agent.provenance["resumes"] == 1 and agent.provenance["steps"] == last + 150
    assert agent.embodiment.name == "quadruped"


def test_run_with_other_settings_is_refused(killed_run, capsys):
    code = cli.main(["train", f"out={killed_run}", *SETTINGS, "learner.tau=0.02", "seed=7"])
    assert code == 2
    said = capsys.readouterr().err
    assert "started with seed=1, not 7, and with learner.tau=0.01, not 0.02; " in said and len(said) < 250


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["robot=arm"], "runs/arm"),
        (["robot=humanoid", "out=here"], "here"),
        (["--preset", "paper", "robot=arm"], "runs/arm"),
        ([], "runs/quadruped"),
    ],
)
def test_a_run_lands_in_the_folder_of_its_robot(words, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr("tdmpc2_core.train.run.TrainingRun.__init__", lambda run, config: made.append(config))
    monkeypatch.setattr(OnlineTrainer, "__init__", lambda *_: None)
    with pytest.raises(AttributeError):  # a run without anything in it
        cli.main(["train", *words])
    assert str(made[0].folder) == folder
    assert str(ExpertRunConfig(robot="arm").folder) == "runs/arm-expert"
    assert str(StudentConfig(robot="arm").folder) == "runs/arm"


def test_paper_preset_is_the_papers_configuration():
    config = train_preset("paper")
    assert (config.model_size, config.num_envs, config.updates_per_step) == ("5", 1, 1.0)
    assert (
        config.random_steps == 5000 and config.demonstration_steps == 0 and not config.normalise_observations
    )
    learner, planner = config.learner, config.planner
    assert (learner.horizon, learner.n_step, learner.batch_size, learner.discount) == (3, 1, 256, 0.995)
    assert (learner.lr, learner.enc_lr_scale, learner.tau, learner.rho) == (3e-4, 0.3, 0.01, 0.5)
    assert (learner.consistency_coef, learner.reward_coef, learner.value_coef) == (20.0, 0.1, 0.1)
    assert learner.actor.objective == "max_q" and learner.actor.entropy_coef == 1e-4
    assert (planner.num_samples, planner.num_elites, planner.num_pi_trajs, planner.iterations) == (
        512,
        64,
        24,
        6,
    )
    assert (planner.min_std, planner.max_std, planner.temperature, planner.evaluation) == (
        0.05,
        2.0,
        0.5,
        "sample",
    )


def test_seed_phase_is_random_actions_then_as_many_updates(tmp_path):
    short = ["num_envs=1", "model_size=robot", "learner.batch_size=8", "planner.num_elites=8"]
    short += [
        "planner.num_samples=32",
        "random_steps=60",
        "replay_sampling=decisions",  # no episode ends in 60 steps
        "steps=62",
        "log_every=1000",
        "eval_every=1000",
        f"out={tmp_path}",
    ]
    assert cli.main(["train", "--preset", "paper", *short]) == 0
    agent = Agent.load(tmp_path / "checkpoint")
    assert (agent.provenance["steps"], agent.provenance["updates"]) == (62, 62)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "device=warp9"], "warp9"),
        (["train", "robot=sextuped"], "sextuped"),
        (["train", "learnr.lr=1"], "learner"),
        (["train", "steps=-5"], "steps"),
        (["train", "out=/proc/nowhere"], "writable folder"),
        (["train", "--resume", "/nonexistent"], "no training run"),
        (["eval", "/nonexistent"], "/nonexistent"),
        (["eval", "quadruped", "--device", "foo"], "--device foo: not available here"),
        (["eval", "quadruped", "--episodes", "0"], "--episodes: must be a whole number from 1 on"),
        (["eval", "quadruped", "--seconds", "-1"], "--seconds: must be a number above 0"),
        (["eval", "quadruped", "--seconds", "nan"], "--seconds: must be a number above 0"),
        (["eval", "quadruped", "--seconds", "0.001"], "less than one decision"),
        (["calibrate", "quadruped", "--rate", "50", "--device", "foo"], "--device foo"),
        (["wander"], "invalid choice: 'wander'"),
        (["eval", "quadruped", "--json", "/proc/nowhere.json"], "cannot be written"),
        (["info", "/nonexistent"], "/nonexistent"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, said, capsys, tmp_path):
    if arguments[0] == "train" and not any(a.startswith(("out=", "--resume")) for a in arguments):
        arguments = [*arguments, f"out={tmp_path}"]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_sentence(capsys):
    assert cli.main(["eval", "quadruped", "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert "--device cuda: not available here" in error and error.count("\n") == 1


def test_a_missing_simulator_is_one_sentence():
    code = "import sys; sys.modules['mujoco'] = None; from tdmpc2_core.cli import main; sys.exit(main())"
    found = subprocess.run(
        [sys.executable, "-c", code, "eval", "quadruped"], capture_output=True, text=True, timeout=240
    )
    assert found.returncode == 2
    assert found.stderr.startswith("tdmpc2: eval: mujoco is missing; install the extra 'sim'")
    assert found.stderr.count("\n") == 1


DEFAULTS = {"train": TrainConfig, "expert": ExpertRunConfig, "student": StudentConfig}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example_that_is_taken(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    words = shlex.split(capsys.readouterr().out.split("example: ")[1].splitlines()[0])
    assert words[:2] == ["tdmpc2", command]
    given = cli._parser().parse_args(words[1:])
    if command in DEFAULTS:
        assert apply_overrides(DEFAULTS[command](), given.settings) != DEFAULTS[command]()


def test_robot_that_takes_no_command_is_evaluated():
    robot = Embodiment.load("quadruped")
    terms = tuple(term for term in robot.observation.terms if term.name != "command")
    reward = tuple(term for term in robot.reward.terms if term.name == "upright")
    standing = replace(
        robot,
        command=None,
        observation=replace(robot.observation, terms=terms),
        reward=replace(robot.reward, terms=reward),
    )
    object.__setattr__(standing, "directory", robot.directory)
    model = small_model(standing.observation_dim, standing.action_dim, seed=0)
    result = evaluate_robot(Agent(model, "policy", embodiment=standing), standing, seconds=1.2, episodes=2)
    assert result.return_per_step > 0.0 and isinstance(result, PoseEvaluation)
