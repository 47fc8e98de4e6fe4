"""A planner along a recording: what it would have done, and how well its model foretells what came."""
