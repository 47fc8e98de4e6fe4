"""Simulated robots to learn from: MuJoCo behind the contracts of the robots."""
