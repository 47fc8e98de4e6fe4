"""The tutorials of driving, of bags and of hardware, walked: commands as printed, long ones cut short."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from fake_robot import PLANNER, FakeRobot
from processes import OnTerminal, domain, wait_until
from random_agent import random_bundle

from tdmpc2_core import cli
from tdmpc2_core.robots import Embodiment

TUTORIALS = Path(__file__).resolve().parents[3] / "docs/tutorials"
QUICKSTART = "scripts/quickstart.sh"
SHORT = [
    "updates=5",
    "check_every=5",
    "batch_size=16",
    "simulation.decisions=400",
    "simulation.robots=4",
    "sim_robots=2",
    "sim_seconds=0.2",
]


def commands(page: str) -> list[list[str]]:
    """The commands of the page's blocks that need no installed ROS 2, in order, in words."""
    blocks = re.findall(r"```bash\n(.*?)```", (TUTORIALS / page).read_text("utf-8"), re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line[0] in ("tdmpc2", QUICKSTART)]


def drive(words: list[str], out: Path, metres: float) -> dict:
    """Run a quickstart on a terminal, hold a key until the robot has walked, press q: results.json."""
    assert "--drive" in words
    arguments = ["-m", "tdmpc2_ros.quickstart", *words, "--no-video", "--out", out]
    with OnTerminal(arguments) as program:
        program.hold("i", until=lambda: walked(program.output) >= metres, timeout=90.0)
        program.press("q")
        assert program.wait(30.0) == 0, program.output
    assert "turn left, stop, turn right" in program.output and "Traceback" not in program.output
    return json.loads((out / "results.json").read_text())


def walked(output: str) -> float:
    """Metres on the last complete live line."""
    found = re.findall(r"distance ([\d.]+) m", output)
    return float(found[-1]) if found else 0.0


def test_the_quadruped_walks_where_the_keys_send_it_and_q_ends_the_drive(tmp_path):
    course, driving = commands("quadruped.md")
    assert course == [QUICKSTART, "quadruped"]  # test_quickstart.py runs it
    results = drive(driving[1:], tmp_path / "out", 0.5)
    assert results["score"]["falls"] == 0 and results["score"]["distance"] > 0.4
    assert results["seconds"] < 60.0 and results["verdict"] == "passed"
    walks = [part for part in results["course"] if part["name"] == "walk"]
    assert walks and walks[0]["command"] == pytest.approx([0.48, 0.0, 0.0])


@pytest.mark.timeout(300)
def test_the_way_from_a_recording_to_a_fine_tuned_bundle(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record, info, convert, identify, finetune = commands("bag.md")
    drive(record[1:], tmp_path / "out", 4.0)  # 8 s: fine-tuning refuses less
    assert cli.main(info[1:]) == 0
    said = capsys.readouterr().out
    assert "/joint_states" in said and "observation usable: gyro" in said
    assert cli.main(convert[1:]) == 0
    said = capsys.readouterr().out
    counted = re.search(r"(\d+) of (\d+) observations are the planner's own, bit for bit", said)
    assert counted and int(counted[1]) > 0.95 * int(counted[2]) > 380  # busy machines lose messages
    assert (tmp_path / "episodes/walk_timeline.png").is_file()
    assert cli.main([*identify[1:], "segments=10", "iterations=1", "only=delay"]) == 0
    assert "delay s" in capsys.readouterr().out
    fitted = Embodiment.load(tmp_path / "robots/measured")
    assert fitted.joint_names == Embodiment.load("quadruped").joint_names
    code = cli.main([*finetune[1:], "--mode", "residual", *SHORT])
    written = (tmp_path / "runs/tuned/bundle.json").is_file()
    assert (code, written) in ((0, True), (cli.NOT_BETTER, False)), capsys.readouterr().err
    assert (tmp_path / "runs/tuned.run/report.json").is_file()


def test_the_order_by_hand_before_hardware_ends_in_holds(tmp_path):
    """The lifecycle and service calls of section 2, in its order, as ros2cli would make them."""
    page = (TUTORIALS / "hardware.md").read_text("utf-8")
    steps = re.findall(
        r"^ros2 (?:lifecycle set /planner|service call) (\S+)(?: std_srvs/srv/Trigger)?$", page, re.MULTILINE
    )
    taken = []
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": random_bundle(tmp_path)})
        try:
            for step in steps:
                service = step.removeprefix("/planner/")
                assert robot.trigger(service) if service != step else robot.change(step), process.log
                taken.append(service)
                if service == "configure":
                    assert robot.quiet(0.3)
                elif service in ("estop", "deactivate"):
                    wait_until(lambda: robot.is_hold(robot.trajectories[-1][1]), 2.0, f"no hold: {service}")
                else:
                    robot.wait_for_commands(10, process=process)
            assert robot.quiet()
        finally:
            robot.close()
    assert taken == ["configure", "activate", "estop", "clear_estop", "deactivate"]
