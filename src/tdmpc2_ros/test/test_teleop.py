"""Driving by keys: what they ask for, when a command ends, and the node on a terminal."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import termios

import pytest
from geometry_msgs.msg import Twist, TwistStamped
from processes import OnTerminal, domain, environment, wait_until

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.quickstart.driving import Drive
from tdmpc2_ros.teleop.gamepad import Gamepad
from tdmpc2_ros.teleop.steering import Steering
from tdmpc2_ros.teleop.terminal import END, keys_of

QUADRUPED = Embodiment.load("quadruped")


def test_what_a_terminal_sends_becomes_keys():
    assert keys_of("i\x1b[A\x1bOD+J\x03") == ["i", "up", "left", "+", "J", END]
    assert keys_of("\x1b[5~") == ["\x1b[5~"]  # one key, which stops, and not four


@pytest.mark.parametrize(
    ("key", "signs"),
    [
        ("i", (1, 0, 0)),
        ("up", (1, 0, 0)),
        ("u", (1, 0, 1)),
        ("o", (1, 0, -1)),
        (",", (-1, 0, 0)),
        ("left", (0, 0, 1)),
        ("J", (0, 1, 0)),
        ("L", (0, -1, 0)),
    ],
)
def test_keys_ask_for_a_share_of_what_the_robot_was_trained_for(key, signs):
    steering = Steering(QUADRUPED)
    for faster in "++++++":
        steering.press(faster, 0.0)
    steering.press(key, 0.0)
    terms = {term.name: term for term in QUADRUPED.twist_command.terms}
    for value, sign, name in zip(
        steering.command(0.0), signs, ("linear_x", "linear_y", "angular_z"), strict=True
    ):
        assert value == pytest.approx({1: terms[name].upper, -1: terms[name].lower, 0: 0.0}[sign])


def test_a_command_ends_with_zeros_and_then_silence():
    steering = Steering(QUADRUPED)
    assert steering.command(0.0) is None
    steering.press("i", 10.0)
    assert steering.command(10.66)[0] > 0.0  # keyboards wait up to 0.66 s before they repeat a key
    steering.press("i", 10.66)
    steering.press("i", 10.7)
    assert steering.command(10.9)[0] > 0.0
    assert steering.command(11.01) == (0.0, 0.0, 0.0)  # released 0.31 s ago
    assert steering.command(11.6) is None
    steering.press("i", 20.0)
    steering.press("?", 20.1)
    assert steering.command(20.1) == (0.0, 0.0, 0.0) and not steering.ended
    steering.press("q", 20.2)
    assert steering.ended and steering.command(20.2) == (0.0, 0.0, 0.0)


class Pad:
    """What a driver writes to /dev/input/js0, into a pipe: 8 bytes per change (linux/joystick.h)."""

    def __init__(self, path) -> None:
        os.mkfifo(path)
        self._file = os.open(path, os.O_RDWR)

    def say(self, *events: tuple[int, int, int], initial: int = 0) -> None:
        """Kind (1 button, 2 axis), number, value."""
        for kind, number, value in events:
            os.write(self._file, struct.pack("=IhBB", 1234, value, kind | initial, number))

    def unplug(self) -> None:
        os.close(self._file)


LB, LEFT_ACROSS, LEFT_UPRIGHT, RIGHT_ACROSS = (1, 4), (2, 0), (2, 1), (2, 3)  # of xpad


def test_a_gamepads_sticks_count_while_its_shoulder_button_is_held(tmp_path):
    pad = Pad(tmp_path / "js0")
    gamepad = Gamepad(tmp_path / "js0")
    pad.say((*LB, 0), (*LEFT_UPRIGHT, 0), (*RIGHT_ACROSS, 0), initial=0x80)
    pad.say((*LEFT_UPRIGHT, -32767))
    assert gamepad.read() is None
    pad.say((*LB, 1))
    assert gamepad.read() == (1.0, 0.0, 0.0)
    pad.say((*LEFT_UPRIGHT, 2000), (*LEFT_ACROSS, 32767), (*RIGHT_ACROSS, -16384))
    forward, left, turn = gamepad.read()
    assert (forward, left) == (0.0, -1.0) and 0.4 < turn < 0.5
    pad.say((*LB, 0))
    assert gamepad.read() is None
    pad.say((*LB, 1))
    assert gamepad.read() is not None
    pad.unplug()
    assert gamepad.read() is None and gamepad.gone
    with pytest.raises(UserError, match="js7: cannot be read"):
        Gamepad(tmp_path / "js7")


def test_a_gamepad_steers_the_drive_and_letting_go_stops_it(tmp_path):
    pad = Pad(tmp_path / "js0")
    with Drive(QUADRUPED, 60.0, tmp_path / "js0") as drive:
        assert drive.steer(0.0) is None
        pad.say((*LB, 1), (*LEFT_UPRIGHT, -32767), (*RIGHT_ACROSS, 32767))
        assert drive.steer(0.1) == pytest.approx((0.8, 0.0, -1.0))  # the ends of the trained range
        assert drive.steer(3.0) == pytest.approx((0.8, 0.0, -1.0))  # held still, a pad says nothing more
        pad.say((*LB, 0))
        assert drive.steer(3.1) == (0.0, 0.0, 0.0)
        pad.say((*LB, 1), (*LEFT_UPRIGHT, 32767), (*RIGHT_ACROSS, 0))
        assert drive.steer(3.2) == pytest.approx((-0.5, 0.0, 0.0))
        pad.unplug()
        assert drive.steer(3.3) == (0.0, 0.0, 0.0)
    assert [segment.name for segment in drive.segments] == ["stand", "walk", "stand", "walk", "stand"]


def test_what_cannot_be_driven_is_one_sentence(monkeypatch):
    with pytest.raises(UserError, match="arm: takes no velocity commands"):
        Steering(Embodiment.load("arm"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UserError, match="--drive takes a terminal's keys"):
        Drive(QUADRUPED, None)
    with pytest.raises(UserError, match="must be above 0"):
        Drive(QUADRUPED, 0.0)


def test_without_a_terminal_the_node_ends_with_one_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "tdmpc2_ros.teleop"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert done.returncode == 2 and "is no terminal" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("kind", "end"), [(Twist, "\x03"), (TwistStamped, "q")])
def test_the_node_on_a_terminal_drives_stops_and_leaves_the_terminal_as_it_was(kind, end):
    stamped = kind is TwistStamped
    with domain() as own:
        got = []
        own.node.create_subscription(kind, "cmd_vel", got.append, qos.COMMAND)
        words = ["-m", "tdmpc2_ros.teleop", "--ros-args", "-p", f"cmd_vel_stamped:={str(stamped).lower()}"]
        with OnTerminal(words, ROS_DOMAIN_ID=str(own.id)) as program:
            before = termios.tcgetattr(program.screen)
            wait_until(lambda: "0.00 rad/s" in program.output, 20.0, lambda: program.output)
            assert "turn left, stop, turn right" in program.output  # the keys are told
            assert got == []  # silent until a key is pressed
            wait_until(lambda: "nobody listens" not in program.output[-80:], 20.0)
            program.hold("u", until=lambda: len(got) > 10)
            twist = got[-1].twist if stamped else got[-1]
            assert twist.linear.x == pytest.approx(0.48) and twist.angular.z == pytest.approx(0.6)
            if stamped:
                assert got[-1].header.frame_id == QUADRUPED.base_frame and got[-1].header.stamp.sec > 0
            wait_until(lambda: _still(got[-1], stamped), 3.0, "no zero after the release of the key")
            program.hold("i", until=lambda: not _still(got[-1], stamped))
            program.press(end)
            assert program.wait() == 0, program.output
            wait_until(lambda: _still(got[-1], stamped), 3.0, "no zero at the end")
            assert "Traceback" not in program.output
            assert termios.tcgetattr(program.screen) == before


def _still(message, stamped: bool) -> bool:
    twist = message.twist if stamped else message
    return twist.linear.x == twist.linear.y == twist.angular.z == 0.0
