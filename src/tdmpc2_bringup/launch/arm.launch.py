"""ros2 launch tdmpc2_bringup arm.launch.py: the arm under its planner, in simulation by default.

It keeps its pose until somebody publishes goal_pose. Arguments: ros2 launch tdmpc2_bringup arm.launch.py -s
"""

from launch import LaunchDescription

from tdmpc2_bringup.robot_launch import robot_launch_description


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch starts."""
    return robot_launch_description("arm")
