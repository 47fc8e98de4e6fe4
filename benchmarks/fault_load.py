"""A process that is a nuisance, for the fault suite: floods, huge messages, busy loops, a second sensor."""

from __future__ import annotations

import sys
import time

import rclpy
from geometry_msgs.msg import Twist
from sensor_msgs.msg import JointState

from tdmpc2_core.errors import UserError
from tdmpc2_ros import qos
from tdmpc2_ros.messages import doubles, to_time

_RATE = 2500.0  # Hz of one process
_HUGE = 100_000  # joints in one message


def flood(seconds: float) -> str:
    """A Twist on cmd_vel at 2.5 kHz, as near as this machine comes; says how many."""
    node = rclpy.create_node("flood")
    publisher, message = node.create_publisher(Twist, "cmd_vel", qos.COMMAND), Twist()
    message.linear.x = 0.4
    start, sent = time.monotonic(), 0
    while (now := time.monotonic() - start) < seconds:
        while sent < now * _RATE:
            publisher.publish(message)
            sent += 1
        time.sleep(0.0002)
    return f"{sent / seconds:.0f} Hz"


def huge(seconds: float) -> str:
    """JointStates of 100 000 joints at 20 Hz beside those of the robot."""
    node = rclpy.create_node("huge")
    publisher = node.create_publisher(JointState, "joint_states", qos.SENSOR_OUTPUT)
    message = JointState(name=[f"stranger_{k}" for k in range(_HUGE)])
    message.position = message.velocity = doubles([0.0] * _HUGE)
    end, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        message.header.stamp = to_time(time.time())
        publisher.publish(message)
        sent += 1
        time.sleep(0.05)
    return f"{sent / seconds:.0f} Hz"


def hog(seconds: float) -> str:
    """One core's worth of nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return ""


def main() -> int:
    """`fault_load.py flood|huge|hog SECONDS`."""
    kinds = {"flood": flood, "huge": huge, "hog": hog}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        raise UserError("give flood, huge or hog, and seconds")
    if sys.argv[1] != "hog":
        rclpy.init(args=[])
    print(kinds[sys.argv[1]](float(sys.argv[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
