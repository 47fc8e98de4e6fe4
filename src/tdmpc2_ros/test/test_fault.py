"""Faults on purpose in running processes: the command, simulation, relay, and the short form of the suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from processes import domain, environment, wait_until
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from sensor_msgs.msg import Imu, JointState

from tdmpc2_ros import qos
from tdmpc2_ros.fault.panel import read, written

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "faults.py"


def test_a_message_read_and_written_says_the_same():
    imu = Imu()
    imu.header.frame_id, imu.header.stamp.sec, imu.header.stamp.nanosec = "imu_link", 12, 500
    imu.orientation.w, imu.angular_velocity.y, imu.linear_acceleration.z = 1.0, 0.25, 9.81
    imu.orientation_covariance[0] = -1.0
    joints = JointState(name=["a", "b"], position=[1.0, 2.0], velocity=[3.0, 4.0])
    twist = Twist()
    twist.linear.x, twist.angular.z = 0.3, -0.4
    for message in (imu, joints, twist):
        assert written(message, read(message)) == message
    fields = read(imu).fields
    assert set(fields) == {"orientation", "angular_velocity", "linear_acceleration"}
    assert fields["orientation"].tolist() == [0.0, 0.0, 0.0, 1.0]


class Listener:
    """What simulation and relay send."""

    def __init__(self, own) -> None:
        self.direct, self.relayed = list[Imu](), list[Imu]()
        self.joints: JointState | None = None
        self.height = 1.0
        topic = "imu_sensor_broadcaster/imu"
        node = own.node
        node.create_subscription(Imu, topic, self.direct.append, qos.STATUS)
        node.create_subscription(Imu, f"fault/{topic}", self.relayed.append, qos.STATUS)
        node.create_subscription(JointState, "joint_states", self._on_joints, qos.STATUS)
        node.create_subscription(Odometry, "simulator/floating_base_state", self._on_base, qos.STATUS)

    def _on_joints(self, message: JointState) -> None:
        self.joints = message

    def _on_base(self, message: Odometry) -> None:
        self.height = message.pose.pose.position.z


def ask(own, **faults: str):
    """What the simulation's service answers to several faults at once."""
    wanted = [
        Parameter(name=name.replace("__", "/"), value=ParameterValue(type=4, string_value=text))
        for name, text in faults.items()
    ]
    request = SetParametersAtomically.Request(parameters=wanted)
    return own.call("/mujoco_sim/fault", SetParametersAtomically, request).result


def gyros(messages: list[Imu]) -> set[float]:
    """Different values among the newest messages."""
    return {message.angular_velocity.x for message in messages[-5:]}


def test_the_command_injects_and_ends_faults_where_they_belong():
    with domain() as own:
        heard = Listener(own)
        simulation = own.start("tdmpc2_ros.simulator.node")
        own.start("tdmpc2_ros.fault").wait_for_log("relaying joints, imu, command")

        def fault(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "tdmpc2_core.cli", "fault", *words]
            there = environment(ROS_DOMAIN_ID=str(own.id))
            return subprocess.run(command, env=there, capture_output=True, text=True, timeout=120)

        wait_until(lambda: len(heard.relayed) > 5 and len(gyros(heard.relayed)) > 1, 20.0, "no relay")
        assert fault("imu", "stuck").stdout == "/fault/fault: imu stuck\n"
        wait_until(lambda: len(gyros(heard.relayed)) == 1, 5.0, "the relay's IMU is not stuck")
        assert len(gyros(heard.direct)) > 1
        stamps = [message.header.stamp.nanosec for message in heard.relayed[-2:]]
        assert stamps[0] != stamps[1], "a stuck sensor has fresh stamps"
        assert fault("imu", "ok").stdout == "/fault/fault, /mujoco_sim/fault: imu ok\n"
        wait_until(lambda: len(gyros(heard.relayed)) > 1, 5.0, "the IMU stays stuck")

        answer = ask(own, joints__FL_hip_joint="off", clock="stuck")
        assert not answer.successful and answer.reason.startswith("clock does not pass here; joints, imu")
        assert len(heard.joints.name) == 12, "one of a request that is refused was set"
        assert ask(own, joints__FL_hip_joint="off", actuators="off").successful
        wait_until(lambda: len(heard.joints.name) == 11, 5.0, "the joint is not missing")
        assert "FL_hip_joint" not in heard.joints.name
        wait_until(lambda: heard.height < 0.2, 10.0, "a robot without torque stands")
        assert fault("simulator", "off").returncode == 0
        assert simulation.wait() == -9 and "Traceback" not in simulation.log
        assert "no process runs here" in fault("simulator", "off").stderr


def test_the_short_suite_finds_every_fault_and_breaks_no_limit(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--short", "--out", str(tmp_path)]
    there = {**os.environ, **environment()}
    done = subprocess.run(command, env=there, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["fault"]: row for row in json.loads((tmp_path / "faults.json").read_text())["rows"]}
    assert set(rows) == {"imu off", "joints garbage", "services and parameters"}
    for name, row in rows.items():
        assert row["over limits"] == 0 and row["walks again after"] != "no" and row["commands"] > 0, row
        assert row["fell"] == "no" or name == "services and parameters", row
    for name in ("imu off", "joints garbage"):
        assert rows[name]["came to"] == "hold" and rows[name]["reason"], rows[name]
        assert rows[name]["ms"] < 500  # 80 ms on a free machine
