"""`python -m tdmpc2_ros.view`, node `view`: a running robot in a browser, with its plan and its command.

It commands nothing; `watch.py` has what it subscribes to. The main thread draws. A robot without odometry is
drawn at the origin with the IMU's orientation.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rclpy.node import Node

from tdmpc2_core.config import setting
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node, spin_in_background
from tdmpc2_ros.view.panel import Panel
from tdmpc2_ros.view.scene import Scene, open_server
from tdmpc2_ros.view.watch import RobotWatch

_PERIOD = 1.0 / 30.0  # s between pictures


@dataclass(frozen=True)
class ViewParameters:
    """All of them are read-only: they are given at start."""

    robot: str = setting("quadruped", why="shipped robot's name or folder with embodiment.yaml")
    prefix: str = setting("", why="before every joint and frame name in messages, such as left_")
    planner: str = setting("planner", why="name of the planner node")
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")
    host: str = setting("127.0.0.1", why="address that the page is on; 0.0.0.0 shows it to the network")
    port: int = setting(8080, low=1, high=65535, why="port that the page is on")


class View(Node):
    """The node. Raises UserError where viser is missing, the port is taken or the robot is unknown."""

    def __init__(self) -> None:
        super().__init__("view")
        settings = Parameters(self, ViewParameters).values
        robot = Embodiment.load(settings.robot)
        self._server = open_server(settings.host, settings.port)
        self._scene, self._panel = Scene(robot, self._server), Panel(self._server)
        self._watch = RobotWatch(self, robot, settings.prefix, settings.planner, settings.cmd_vel_stamped)
        self.get_logger().info(f"{robot.name}: http://{settings.host}:{settings.port}")

    def run(self, stop: Stop) -> None:
        """Draw until `stop` is set."""
        with spin_in_background(self):
            while not stop.wait(_PERIOD):
                seen = self._watch.seen()
                self._scene.show(seen)
                self._panel.update(time.monotonic(), self._watch.text(seen), self._watch.figures())
        self._server.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(View, View.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
