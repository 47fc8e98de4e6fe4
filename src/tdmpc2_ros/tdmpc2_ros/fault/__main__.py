"""`python -m tdmpc2_ros.fault`, node `fault`: a relay that passes a robot's messages on with faults.

    subscribes  the topics of the robot's sources in `messages.SOURCE_TOPICS`, /clock when asked
    publishes   the same below its own name: fault/joint_states, fault/imu_sensor_broadcaster/imu, ...
    services    ~/fault (rcl_interfaces/SetParametersAtomically)

It stands between a driver and those who are remapped to it: planner, supervisor. Without a fault messages
pass unchanged.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock

from tdmpc2_core.config import setting
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.faults import CLOCK
from tdmpc2_core.robots.messages import prefixed
from tdmpc2_ros import qos
from tdmpc2_ros.fault.panel import FaultPanel
from tdmpc2_ros.messages import source_topics
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node, spin_in_background

_LOOK = 0.005  # s between looks for messages that are due


@dataclass(frozen=True)
class RelayParameters:
    """All of them are read-only: they are given at start."""

    robot: str = setting("quadruped", why="shipped robot's name, or path of a folder with embodiment.yaml")
    prefix: str = setting("", why="before every joint and frame name in messages, such as left_")
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")
    clock: bool = setting(False, why="relay /clock too")
    seed: int = setting(0, low=0, high=2**31 - 1, why="seed of garbage and order")


class Relay(Node):
    """The node. Raises UserError for wrong parameters."""

    def __init__(self) -> None:
        super().__init__("fault")
        values = Parameters(self, RelayParameters).values
        robot = prefixed(Embodiment.load(values.robot), values.prefix)
        rows = source_topics(robot)
        sources = [row.source for row in rows]
        self._panel = FaultPanel(robot, sources, self.get_logger(), values.clock, seed=values.seed)
        self._newest: dict[str, tuple[Publisher, Any]] = {}  # of each component
        for row in rows:
            kind = row.kind(values.cmd_vel_stamped)
            profile = qos.SENSOR_OUTPUT if row.encoder else row.profile
            out = self.create_publisher(kind, f"~/{row.topic}", profile)
            self.create_subscription(kind, row.topic, partial(self._pass, row.source, out), row.profile)
        if values.clock:
            out = self.create_publisher(Clock, "~/clock", qos.CLOCK)
            self.create_subscription(Clock, "/clock", partial(self._pass, CLOCK, out), qos.CLOCK)
        self.create_service(SetParametersAtomically, "~/fault", self._panel.serve)
        self.get_logger().info(f"{robot.name}: relaying {', '.join(sources)} below {self.get_name()}/")

    def _pass(self, component: str, out: Publisher, message: Any) -> None:
        self._newest[component] = out, message
        for one in self._panel.passed(component, time.monotonic(), message):
            out.publish(one)

    def run(self, stop: Stop) -> None:
        """Relay until `stop` is set."""
        with spin_in_background(self):
            while not stop.wait(_LOOK):
                for component, (out, message) in list(self._newest.items()):
                    for late in self._panel.late(component, time.monotonic(), message):
                        out.publish(late)


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(Relay, Relay.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
