"""ros2 launch tdmpc2_bringup robot.launch.py robot:=FOLDER: a robot of your own.

docs/how-to/add-a-robot.md makes one. FOLDER holds embodiment.yaml, its MJCF and a checkpoint
bundle in `bundle`, unless model:= names another.
"""

from launch import LaunchDescription

from tdmpc2_bringup.robot_launch import robot_launch_description


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch starts."""
    return robot_launch_description()
