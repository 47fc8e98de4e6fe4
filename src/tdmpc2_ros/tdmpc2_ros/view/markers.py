"""`python -m tdmpc2_ros.view.markers`, node `markers`: plan, command and trust of a running robot for RViz.

    publishes  markers (visualization_msgs/MarkerArray), in the robot's base frame

While nobody listens to them it listens to nothing itself: a planner makes what it tells for those who listen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from visualization_msgs.msg import Marker, MarkerArray

from tdmpc2_core.config import setting
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.messages import prefixed
from tdmpc2_ros import qos
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node, spin_in_background
from tdmpc2_ros.view.geometry import Seen, commanded_way, planned_ways
from tdmpc2_ros.view.watch import RobotWatch

Colour = tuple[float, float, float]  # red, green, blue
_PLAN, _COMMAND, _TEXT = (0.16, 0.43, 0.9), (0.9, 0.47, 0.08), (0.1, 0.1, 0.1)
_PERIOD = 0.1  # s between pictures
_LASTS = 0.5  # s that RViz shows one for
_LINE, _LETTER = 0.008, 0.06  # m
_ABOVE = 0.35  # m, of the text above the base


@dataclass(frozen=True)
class MarkersParameters:
    """All of them are read-only: they are given at start."""

    robot: str = setting("quadruped", why="shipped robot's name or folder with embodiment.yaml")
    prefix: str = setting("", why="before every joint and frame name in messages, such as left_")
    planner: str = setting("planner", why="name of the planner node")
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")


class Markers(Node):
    """The node. Raises UserError where the robot is unknown."""

    def __init__(self) -> None:
        super().__init__("markers")
        self._settings = Parameters(self, MarkersParameters).values
        self._robot = Embodiment.load(self._settings.robot)
        self._frame = prefixed(self._robot, self._settings.prefix).base_frame
        self._simulation = Simulation(self._robot)
        self._watch: RobotWatch | None = None
        self._publisher = self.create_publisher(MarkerArray, "markers", qos.COMMAND)
        self.create_timer(_PERIOD, self._show, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _show(self) -> None:
        heard = self._publisher.get_subscription_count() > 0
        if heard and self._watch is None:
            given = self._settings
            self._watch = RobotWatch(self, self._robot, given.prefix, given.planner, given.cmd_vel_stamped)
        elif not heard and self._watch is not None:
            self._watch.destroy()
            self._watch = None
        if self._watch is not None:
            seen = self._watch.seen()
            here = replace(seen, position=np.zeros(3), orientation=np.array([0.0, 0.0, 0.0, 1.0]))
            text = self._watch.text(seen)
            said = [text[name] for name in ("mode", "trust") if name in text]
            self._publisher.publish(MarkerArray(markers=list(self._markers(here, said))))

    def _markers(self, seen: Seen, said: list[str]) -> Iterator[Marker]:
        """What there is to see now, the base at the origin."""
        if len(seen.plan):
            ways = planned_ways(self._simulation, self._robot, seen)
            for number in range(ways.shape[1]):
                yield self._line("plan", number, ways[:, number], _PLAN, _LINE)
        if seen.command.any():
            way = commanded_way(seen)
            yield self._line("command", 0, way, _COMMAND, 2.0 * _LINE)
            if np.linalg.norm(way[-1] - way[-2]) > 1e-6:  # not where it turns on the spot
                yield self._arrow("command", 1, way[-2], way[-1])
        if said:
            marker = self._marker("trust", 0, Marker.TEXT_VIEW_FACING, _TEXT)
            marker.text, marker.scale.z, marker.pose.position.z = "\n".join(said), _LETTER, _ABOVE
            yield marker

    def _marker(self, namespace: str, number: int, kind: int, colour: Colour) -> Marker:
        marker = Marker(ns=namespace, id=number, type=kind, action=Marker.ADD, frame_locked=True)
        marker.header.frame_id = self._frame  # its stamp of zero stands for the newest transform
        marker.lifetime = Duration(seconds=_LASTS).to_msg()
        marker.color.r, marker.color.g, marker.color.b = colour
        marker.color.a = marker.pose.orientation.w = 1.0
        return marker

    def _line(
        self, namespace: str, number: int, way: NDArray[np.float64], colour: Colour, width: float
    ) -> Marker:
        """Along a way (T, 3), m."""
        marker = self._marker(namespace, number, Marker.LINE_STRIP, colour)
        marker.scale.x, marker.points = width, _points(way)
        return marker

    def _arrow(
        self, namespace: str, number: int, before: NDArray[np.float64], end: NDArray[np.float64]
    ) -> Marker:
        """The head (3,) that a line ends with, behind which its last piece began (3,)."""
        marker = self._marker(namespace, number, Marker.ARROW, _COMMAND)
        ahead = (end - before) / np.linalg.norm(end - before)
        marker.points = _points(np.stack([end, end + 10.0 * _LINE * ahead]))
        marker.scale.x, marker.scale.y, marker.scale.z = _LINE, 8.0 * _LINE, 8.0 * _LINE
        return marker

    def run(self, stop: Stop) -> None:
        """Serve until `stop` is set."""
        with spin_in_background(self):
            stop.wait()


def _points(way: NDArray[np.float64]) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in way.tolist()]


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(Markers, Markers.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
