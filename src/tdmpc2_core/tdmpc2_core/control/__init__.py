"""A robot's control without ROS: when to decide, what to command, what to fall back on."""
