"""ros2 launch tdmpc2_bringup humanoid.launch.py: the humanoid under its planner, in simulation by default.

It stands until somebody publishes cmd_vel. The arguments: ros2 launch tdmpc2_bringup humanoid.launch.py -s
"""

from launch import LaunchDescription

from tdmpc2_bringup.robot_launch import robot_launch_description


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch starts."""
    return robot_launch_description("humanoid")
