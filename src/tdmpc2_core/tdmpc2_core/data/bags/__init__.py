"""Bags of rosbag2 to episodes, without ROS; needs the extra `bags`."""
