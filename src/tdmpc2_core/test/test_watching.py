"""Watching a bundle: films on clean ground, curves of runs, the page of a bundle."""

import json

import numpy as np
import pytest

from tdmpc2_core.cli import main
from tdmpc2_core.envs.robot.film import Recording, write_film
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots import Embodiment

BUNDLE = str(shipped_bundle("quadruped"))
ROBOT = Embodiment.load("quadruped")


def standing(turn: float) -> Recording:
    """Three states of a robot that stands with a heading, rad."""
    half = np.array([0.0, 0.0, np.sin(turn / 2), np.cos(turn / 2)])
    place = np.array([3.0, 1.0, ROBOT.reset.base_height])
    times = 0.02 * np.arange(3)
    states = np.tile(place, (3, 1)), np.tile(half, (3, 1)), np.tile(ROBOT.default_position, (3, 1))
    return Recording(str(ROBOT.directory), times, *states, np.zeros((0, 7)), 0.02)


def test_the_floor_beside_the_robot_has_no_specks_of_shadow(tmp_path):
    imageio = pytest.importorskip("imageio")
    try:
        write_film(standing(2.5), None, tmp_path / "shot.png")
    except UserError as problem:
        assert "MuJoCo cannot render here" in str(problem)  # no renderer on this machine
        return
    floor = imageio.v3.imread(tmp_path / "shot.png")[260:400, 900:].astype(int).sum(axis=2)
    assert floor.min() > 0.75 * np.median(floor)


def test_an_evaluation_writes_a_picture_and_its_result(tmp_path, capsys):
    picture, result = tmp_path / "walk.png", tmp_path / "walk.json"
    words = ["eval", BUNDLE, "--episodes", "1", "--seconds", "0.2", "--planner", "policy"]
    code = main([*words, "--picture", str(picture), "--json", str(result)])
    output = capsys.readouterr()
    assert json.loads(result.read_text())["episodes"] == 1
    assert (code == 0 and picture.stat().st_size > 1000) or "MuJoCo cannot render here" in output.err


def test_the_page_of_a_bundle_and_its_json_agree(capsys):
    assert main(["info", BUNDLE]) == 0
    page = capsys.readouterr().out
    assert main(["info", BUNDLE, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (
        f"latent {facts['model']['latent_dim']}" in page and f"horizon {facts['planner']['horizon']}" in page
    )
    assert max(map(len, page.splitlines())) < 400 and "quadruped: 12 joints, 50 Hz" in page


def test_curves_need_a_run_and_draw_what_it_holds(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("step,loss,level\n10,1.5,\n20,0.5,\n")
    assert main(["curves", str(tmp_path)]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert "1 measures" in capsys.readouterr().out  # a column without a number has no panel
    assert main(["curves", str(tmp_path / "none")]) == 2
    assert "holds no train.csv" in capsys.readouterr().err


def test_a_command_that_does_not_fit_the_robot_is_one_sentence(tmp_path, capsys):
    assert main(["watch", BUNDLE, "--command", "1", "--out", str(tmp_path / "film.mp4")]) == 2
    assert "--command has 1 numbers; quadruped takes 3 numbers" in capsys.readouterr().err
