"""ROS 2 nodes of the tdmpc2 suite: planner, MuJoCo simulation, recorder, quickstart.

The ROS wheels from PyPI leave AMENT_PREFIX_PATH unset, and every look-up of a ROS library then fails; their
prefix is that of the Python environment. Where ROS is installed and sourced the variable is set and stays.
"""

import os
import sys

os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
