"""Episodes from a bag: a quadruped's joints and IMU at 200 Hz, odometry, commands at 50 Hz, on one core.

Time is that of the processor, of the whole conversion, first look and picture included, imports not; memory
is the process's largest.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import parser, print_table, results_of, save, script
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from tdmpc2_core.data.bags.convert import convert_bags
from tdmpc2_core.errors import natural
from tdmpc2_core.robots import Embodiment

EPOCH, RATE = 1_790_000_000, 200
TYPES = {
    "/joint_states": "sensor_msgs/msg/JointState",
    "/imu_sensor_broadcaster/imu": "sensor_msgs/msg/Imu",
    "/odom": "nav_msgs/msg/Odometry",
    "/joint_trajectory_controller/joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
}


def write(path: Path, robot: Embodiment, seconds: int, storage: str) -> None:
    """A bag of a robot that sways in place."""
    store = get_typestore(Stores.ROS2_JAZZY)
    kinds, nine, many = store.types, np.zeros(9), np.zeros(36)
    zero = kinds["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    down = kinds["geometry_msgs/msg/Vector3"](0.0, 0.0, 9.81)
    upright = kinds["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    pose = kinds["geometry_msgs/msg/Pose"](kinds["geometry_msgs/msg/Point"](0.0, 0.0, 0.3), upright)
    pose = kinds["geometry_msgs/msg/PoseWithCovariance"](pose, many)
    twist = kinds["geometry_msgs/msg/Twist"](zero, zero)
    twist = kinds["geometry_msgs/msg/TwistWithCovariance"](twist, many)
    clock, head = kinds["builtin_interfaces/msg/Time"], kinds["std_msgs/msg/Header"]
    duration = kinds["builtin_interfaces/msg/Duration"](0, round(1e9 / robot.control_rate))
    names, nothing = list(robot.joint_names), np.zeros(0)
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        topics = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in TYPES.items()}
        for k in range(seconds * RATE):
            at, angle = EPOCH * 10**9 + k * (10**9 // RATE), 4.0 * k / RATE
            header = head(clock(*divmod(at, 10**9)), "")
            swing = robot.default_position + 0.1 * np.sin(angle)
            speed, effort = np.full(12, 0.4 * np.cos(angle)), np.zeros(12)
            point = (swing, nothing, nothing, nothing, duration)
            row = kinds["trajectory_msgs/msg/JointTrajectoryPoint"](*point)
            messages = [
                kinds["sensor_msgs/msg/JointState"](header, names, swing, speed, effort),
                kinds["sensor_msgs/msg/Imu"](header, upright, nine, zero, nine, down, nine),
                kinds["nav_msgs/msg/Odometry"](header, "base_link", pose, twist),
                kinds["trajectory_msgs/msg/JointTrajectory"](head(clock(0, 0), ""), names, [row] * 5),
            ]
            for (topic, kind), message in zip(TYPES.items(), messages, strict=True):
                if "trajectory" not in topic or k % round(RATE / robot.control_rate) == 0:
                    writer.write(topics[topic], at + 10**6, store.serialize_cdr(message, kind))


def main() -> int:
    """Print the table; write bags.json."""
    options = parser(__doc__ or "", "python benchmarks/bags.py")
    options.add_argument("--seconds", type=natural, nargs="+", default=[60, 240], help="lengths of the bags")
    args = options.parse_args()
    robot, rows = Embodiment.load("quadruped"), []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "warm"), robot, 5, "mcap")
        convert_bags([Path(folder, "warm")], robot, Path(folder, "store_warm"))  # imports do not count
        for storage in ("mcap", "sqlite3"):
            for seconds in args.seconds:
                bag = Path(folder, f"{storage}_{seconds}")
                write(bag, robot, seconds, storage)
                began = time.process_time()
                (report,) = convert_bags([bag], robot, Path(folder, f"store_{storage}_{seconds}"))
                spent = time.process_time() - began
                rows.append(
                    {
                        "storage": storage,
                        "seconds": seconds,
                        "megabytes": sum(f.stat().st_size for f in bag.iterdir()) / 1e6,
                        "episodes": report.episodes,
                        "decisions": report.decisions,
                        "cpu seconds": spent,
                        "times real time": seconds / spent,
                        "peak memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                    }
                )
    print_table(rows)
    save(results_of(args.out), "bags", rows)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
