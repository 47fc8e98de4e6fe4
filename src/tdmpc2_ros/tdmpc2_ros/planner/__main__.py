"""`python -m tdmpc2_ros.planner`: the planner node, where ros2 run is not at hand."""

import sys

from tdmpc2_ros.planner.node import main

sys.exit(main())
