"""The simulation node: a robot in MuJoCo behind the topics of a ros2_control stack."""
