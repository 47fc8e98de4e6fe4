"""TD-MPC2 for robots: a learned world model that plans. See docs/architecture.md for the rooms of this package."""

__version__ = "0.1.0"
