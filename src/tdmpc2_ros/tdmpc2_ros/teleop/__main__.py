"""`python -m tdmpc2_ros.teleop`, node `teleop`: drives a robot by the keys of its terminal.

Publishes cmd_vel while a key is pressed, zero after its release, and then nothing, which counts as zero. Ends
with q, Ctrl-C or SIGTERM, and with a zero command.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.duration import Duration
from rclpy.node import Node

from tdmpc2_core.config import setting
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.live_line import LiveLine
from tdmpc2_ros.messages import SOURCE_TOPICS, other_types, twist_message
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node, spin_in_background
from tdmpc2_ros.teleop.steering import COMPONENTS, KEYS, Command, Steering
from tdmpc2_ros.teleop.terminal import Terminal

_PERIOD = 0.05  # s: cmd_vel at 20 Hz
_ZERO = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class TeleopParameters:
    """All of them are read-only: they are given at start."""

    robot: str = setting("quadruped", why="shipped robot's name or folder, whose trained range keys span")
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")
    frame: str = setting("", why="frame_id of stamped commands; empty takes the robot's base frame")


class Teleop(Node):
    """The node. Raises UserError when the robot is unknown or takes no velocity commands."""

    def __init__(self) -> None:
        super().__init__("teleop")
        settings = Parameters(self, TeleopParameters).values
        embodiment = Embodiment.load(settings.robot)
        self._steering = Steering(embodiment)
        self._frame = settings.frame or embodiment.base_frame
        self._kind = SOURCE_TOPICS["cmd_vel"].kind(settings.cmd_vel_stamped)
        self._publisher = self.create_publisher(self._kind, "cmd_vel", qos.COMMAND)

    def send(self, command: Command) -> None:
        """Publish cmd_vel: x m/s, y m/s, yaw rate rad/s."""
        message: Twist | TwistStamped = twist_message(command, COMPONENTS)
        if self._kind is TwistStamped:
            message = TwistStamped(twist=message)
            message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), self._frame
        self._publisher.publish(message)

    def run(self, stop: Stop) -> None:
        """Read keys until one of them, or `stop`, ends it."""
        steering, live = self._steering, LiveLine()
        with Terminal() as terminal, spin_in_background(self):
            print(f"{KEYS}\n", flush=True)
            try:
                while not stop.is_set() and not steering.ended:
                    for key in terminal.read(_PERIOD):
                        steering.press(key, time.monotonic())
                    command = steering.command(time.monotonic())
                    if command is not None:
                        self.send(command)
                    live.show(self._in_words(command or _ZERO))
            finally:
                self.send(_ZERO)
                self._publisher.wait_for_all_acked(Duration(seconds=0.5))
                live.end()

    def _in_words(self, command: Command) -> str:
        x, y, yaw = command
        text = f"{x:+.2f} {y:+.2f} m/s {yaw:+.2f} rad/s  level {100 * self._steering.level:.0f} %"
        if not self._publisher.get_subscription_count():
            text += f"  nobody listens to {self._publisher.topic_name}"
            if others := other_types(self, self._publisher.topic_name, self._kind, publishers=False):
                text += f" as this type, but as {', '.join(others)} (cmd_vel_stamped)"
        return text


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after its end, 2 after a user's mistake."""
    return run_node(Teleop, Teleop.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
