"""Simulated robots to learn from: MuJoCo behind the robots' own contracts."""
