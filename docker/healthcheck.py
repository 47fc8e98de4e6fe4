"""Exit code 0 if the node named in TDMPC2_NODE is on the ROS graph or none is named, or 1 after 5 s."""

import os
import sys
import time

import rclpy

SECONDS = 5.0


def main() -> int:
    """Look for the node until it is found or the time is over."""
    wanted = os.environ.get("TDMPC2_NODE", "")
    if not wanted:
        return 0
    rclpy.init()
    node = rclpy.create_node("healthcheck")
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if wanted in node.get_node_names():
                return 0
            time.sleep(0.1)
        print(f"no node {wanted} within {SECONDS:g} s", file=sys.stderr)
        return 1
    finally:
        node.destroy_node()
        rclpy.shutdown()


if __name__ == "__main__":
    sys.exit(main())
