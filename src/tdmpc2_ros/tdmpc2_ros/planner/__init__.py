"""The planner node: sensors in, joint targets out."""
