"""The supervisor: a process that stops the robot where its planner fails."""
