"""TD-MPC2 for robots: a learned world model that plans. docs/architecture.md shows what lies where."""

__version__ = "0.1.0"
