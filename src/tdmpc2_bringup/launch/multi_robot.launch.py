"""ros2 launch tdmpc2_bringup multi_robot.launch.py robot:=quadruped robots:=2: several robots, in simulation.

Each is in a namespace of its own: robot1/cmd_vel commands the first and no other. Arguments: append -s
"""

from launch import LaunchDescription

from tdmpc2_bringup.robot_launch import multi_robot_launch_description


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch starts."""
    return multi_robot_launch_description()
