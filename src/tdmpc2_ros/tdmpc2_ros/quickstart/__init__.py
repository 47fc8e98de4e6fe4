"""The quickstart: simulation and planner as processes, a course, and how it went."""
