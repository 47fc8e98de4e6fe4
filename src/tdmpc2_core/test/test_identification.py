"""Identification of a robot from its recorded motion, against simulated robots whose physics are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from tdmpc2_core.cli import main
from tdmpc2_core.data.episodes import EpisodeStore, read_episode
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.identification import IdentifyConfig, identify
from tdmpc2_core.identification.simulated import record
from tdmpc2_core.robots import Embodiment

KINDS = "kp,kd,delay"


def gait(robot: Embodiment):
    """Legs that swing and press: a controller that is none of the suite's."""
    clock = iter(np.arange(1e6))

    def act(observed, first):
        phase = 2.0 * np.pi * 1.5 * next(clock) * robot.control_period
        wave = np.sin(phase + np.arange(robot.action_dim) * 0.9 + np.arange(len(observed))[:, None])
        return (0.15 * wave).astype(np.float32)

    return act


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    robot, folder = Embodiment.load("quadruped"), tmp_path_factory.mktemp("episodes")
    content = robot.to_dict()
    content["randomisation"]["delay"] = [0.032, 0.032]
    slow = Embodiment.from_dict(content, directory=robot.directory)
    record(folder, slow, gait(robot), 4, 2.0, 3, lambda one: one.set_gains(np.full(12, 0.8)))
    return folder


def test_gains_and_delay_of_someone_elses_controller_lie_in_the_intervals(
    store: Path, tmp_path: Path
) -> None:
    out, before = tmp_path / "measured", {path: path.read_bytes() for path in store.iterdir()}
    words = ["identify", "--embodiment", "quadruped", "--data", str(store), "--out", str(out)]
    assert main([*words, "segments=24", f"only={KINDS}", "threads=1", "iterations=6", "seconds=0.1"]) == 0
    assert {path: path.read_bytes() for path in store.iterdir()} == before
    report = json.loads((out / "identification.json").read_text())
    rows = {row["parameter"]: row for row in report["parameters"]}
    for name, true in {"kp": 0.8, "delay": 0.032}.items():
        low, high = rows[name]["interval"]
        assert rows[name]["identifiable"] and low <= true <= high, rows[name]
    errors = report["held_out_error_sigma"]
    assert errors["after"]["all"] < errors["before"]["all"]
    assert (out / "identification.png").stat().st_size > 1000
    robot, nominal = Embodiment.load(out), Embodiment.load("quadruped")
    assert robot.fingerprint == nominal.fingerprint
    kp = Simulation(robot).model.actuator_gainprm[:, 0]
    assert kp == pytest.approx(nominal.kp * rows["kp"]["estimate"])
    assert robot.randomisation.delay == pytest.approx(rows["delay"]["interval"])
    assert main([*words, "segments=24"]) == 2  # it exists


def test_what_standing_still_does_not_tell_stays_nominal(tmp_path: Path) -> None:
    robot = Embodiment.load("quadruped")
    record(tmp_path, robot, lambda seen, _: np.zeros((len(seen), 12), np.float32), 2, 2.0)
    config = IdentifyConfig(segments=10, only="friction,delay", threads=1, iterations=1, seconds=0.1)
    result = identify(robot, [tmp_path], config)
    assert [one.identifiable for one in result.found] == [False, False]
    assert result.values() == pytest.approx([one.parameter.nominal for one in result.found])


@pytest.mark.parametrize("lost", ["raw", "all"])
def test_data_that_do_not_serve_are_one_sentence(
    lost: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    if lost == "raw":
        episode, _ = read_episode(sorted(store.iterdir())[0])
        del episode.raw["target"]
        EpisodeStore(data).append(episode)
    words = ["identify", "--embodiment", "quadruped", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("raw/target" if lost == "raw" else "no episodes") in said
    assert not (tmp_path / "out").exists()


def test_a_plant_weighs_and_drives_as_its_numbers_say() -> None:
    robot = Embodiment.load("quadruped")
    content = robot.to_dict()
    plant = {"mass": 2.0, "mass_offset": [0.1, 0.0, 0.0], "friction": 0.4, "effort": [0.5] + [1.0] * 11}
    content["plant"] = plant
    changed = Embodiment.from_dict(content, directory=robot.directory)
    one, other = Simulation(changed), Simulation(robot)
    assert one.model.body_mass.sum() == pytest.approx(other.model.body_mass.sum() + 2.0)
    shift = one.data.subtree_com[one.base] - other.data.subtree_com[other.base]
    total = other.model.body_mass.sum()
    expected = 2.0 * (0.1 - (other.data.subtree_com[other.base][0])) / (total + 2.0)
    assert shift[0] == pytest.approx(expected, abs=1e-6)
    assert one.sliding_friction == 0.4
    one.set_gains(np.ones(12))
    one.set_effort(np.ones(12))
    assert one.model.actuator_forcerange[0, 1] == pytest.approx(0.5 * robot.effort_limit[0])
