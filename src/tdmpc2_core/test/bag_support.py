"""Bags for tests: a simulated robot's sensors and commands as messages, written by `rosbags`' own writer."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.robots import Embodiment

STORE = get_typestore(Stores.ROS2_JAZZY)
EPOCH = 1_790_000_000.0  # s
STILL = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)
JOINTS, IMU, ODOMETRY = "/joint_states", "/imu_sensor_broadcaster/imu", "/simulator/floating_base_state"
TRAJECTORY, COMMAND = "/joint_trajectory_controller/joint_trajectory", "/cmd_vel"


def kind(name: str) -> Any:
    """The class of a message type such as sensor_msgs/msg/Imu."""
    return STORE.types[name]


class Entry(NamedTuple):
    """A message, received at `time`, s."""

    time: float
    topic: str
    kind: str
    message: Any


def header(stamp: float) -> Any:
    nanoseconds = round(stamp * 1e9)
    time = kind("builtin_interfaces/msg/Time")(*divmod(nanoseconds, 1_000_000_000))
    return kind("std_msgs/msg/Header")(time, "")


def joint_state(stamp: float, names: list[str], position: Any, velocity: Any, effort: Any = ()) -> Any:
    arrays = (np.asarray(values, np.float64) for values in (position, velocity, effort))
    return kind("sensor_msgs/msg/JointState")(header(stamp), list(names), *arrays)


def vector(values: Any) -> Any:
    return kind("geometry_msgs/msg/Vector3")(*map(float, values))


def quaternion(xyzw: Any) -> Any:
    return kind("geometry_msgs/msg/Quaternion")(*map(float, xyzw))


def imu(stamp: float, orientation: Any, gyro: Any, acceleration: Any = (0.0, 0.0, 0.0)) -> Any:
    nine = np.zeros(9)
    parts = (quaternion(orientation), nine, vector(gyro), nine, vector(acceleration), nine)
    return kind("sensor_msgs/msg/Imu")(header(stamp), *parts)


def odometry(stamp: float, position: Any, orientation: Any, linear: Any, angular: Any) -> Any:
    point = kind("geometry_msgs/msg/Point")(*map(float, position))
    pose = kind("geometry_msgs/msg/Pose")(point, quaternion(orientation))
    twist = kind("geometry_msgs/msg/Twist")(vector(linear), vector(angular))
    many = np.zeros(36)
    pose = kind("geometry_msgs/msg/PoseWithCovariance")(pose, many)
    twist = kind("geometry_msgs/msg/TwistWithCovariance")(twist, many)
    return kind("nav_msgs/msg/Odometry")(header(stamp), "base_link", pose, twist)


def trajectory(names: Any, targets: np.ndarray, period: float) -> Any:
    nothing = np.zeros(0)
    points = [
        kind("trajectory_msgs/msg/JointTrajectoryPoint")(
            np.asarray(row, np.float64),
            nothing,
            nothing,
            nothing,
            kind("builtin_interfaces/msg/Duration")(0, round((k + 1) * period * 1e9)),
        )
        for k, row in enumerate(targets)
    ]
    return kind("trajectory_msgs/msg/JointTrajectory")(header(0.0), list(names), points)


def twist(values: Any) -> Any:
    linear_x, linear_y, angular_z = values
    return kind("geometry_msgs/msg/Twist")(vector((linear_x, linear_y, 0.0)), vector((0.0, 0.0, angular_z)))


@dataclass
class Recording:
    """What an environment did, and the messages that a robot would have sent of it."""

    robot: Embodiment
    entries: list[Entry] = field(default_factory=list)
    observation: list[np.ndarray] = field(default_factory=list)
    action: list[np.ndarray] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    velocity: list[np.ndarray] = field(default_factory=list)  # true, of the base

    def topic(self, name: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.topic == name]

    def without(self, *names: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.topic not in names]


def record(
    steps: int, robot: str = "quadruped", start: float = EPOCH, latency: float = 0.004, action: Any = None
) -> Recording:
    """A robot that sways on its feet; its command changes half way.

    A decision is made as its samples are measured; the command leaves `latency` s later.
    """
    env = RobotEnv(Embodiment.load(robot), 0, STILL)
    made, names, period = Recording(env.embodiment), env.embodiment.joint_names, env.embodiment.control_period
    env.set_command(np.zeros(3))
    made.observation.append(env.reset())
    begin = env.simulation.time
    for k in range(steps):
        now = start + env.simulation.time - begin
        _sense(made, env, now, np.array([0.2, 0.0, 0.0]) * (k > steps // 2))
        sway = 0.15 * np.sin(0.2 * k + np.arange(12))
        made.action.append((sway if action is None else action(k)).astype(np.float32))
        env.set_command(np.array([0.2, 0.0, 0.0]) * (k + 1 > steps // 2))
        result = env.step(made.action[-1])
        made.entries.append(
            Entry(
                now + latency,
                TRAJECTORY,
                "trajectory_msgs/msg/JointTrajectory",
                trajectory(names, env.targets[None], period),
            )
        )
        made.observation.append(result.observation)
        made.reward.append(result.reward)
        made.velocity.append(env.simulation.base_velocity()[0])
    _sense(made, env, start + env.simulation.time - begin, np.array([0.2, 0.0, 0.0]))
    return made


def _sense(made: Recording, env: RobotEnv, now: float, command: np.ndarray) -> None:
    simulation, order = env.simulation, np.argsort(made.robot.joint_names)
    names = [made.robot.joint_names[i] for i in order]
    values = (simulation.joint_position(), simulation.joint_velocity(), simulation.joint_effort())
    orientation, gyro, acceleration = simulation.imu()
    position, base = simulation.base_pose()
    state = joint_state(now, names, *(part[order] for part in values))
    made.entries += [
        Entry(now + 0.0001, COMMAND, "geometry_msgs/msg/Twist", twist(command)),
        Entry(now + 0.0002, IMU, "sensor_msgs/msg/Imu", imu(now, orientation, gyro, acceleration)),
        Entry(
            now + 0.0002,
            ODOMETRY,
            "nav_msgs/msg/Odometry",
            odometry(now, position, base, *simulation.base_velocity()),
        ),
        Entry(now + 0.0003, JOINTS, "sensor_msgs/msg/JointState", state),
    ]


def write_bag(
    path: Path, entries: list[Entry], storage: str = "mcap", compression: str = "none", metadata: bool = True
) -> Path:
    """A bag of these messages; `compression` none, message, file, or storage (zstd)."""
    shutil.rmtree(path, ignore_errors=True)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    if compression != "none":
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for entry in entries:
            if entry.topic not in connections:
                connections[entry.topic] = writer.add_connection(entry.topic, entry.kind, typestore=STORE)
            data = entry.message
            data = data if isinstance(data, bytes) else bytes(STORE.serialize_cdr(data, entry.kind))
            writer.write(connections[entry.topic], round(entry.time * 1e9), data)
    if not metadata:
        (path / "metadata.yaml").unlink()
    return path
