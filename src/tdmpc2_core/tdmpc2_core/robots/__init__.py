"""Robots without learning: description, sensors, observation, action, safety. numpy only.

Used unchanged by training, the simulation node, the planner node and bag replay.
"""

from tdmpc2_core.robots.action import ActionMapper
from tdmpc2_core.robots.embodiment import Embodiment, TermBlock, shipped_names
from tdmpc2_core.robots.observation import ObservationAssembler
from tdmpc2_core.robots.rewards import Reward, RobotState, StateTracker
from tdmpc2_core.robots.safety import SafetyFilter, SafetyResult
from tdmpc2_core.robots.sensors import SensorState, Snapshot
from tdmpc2_core.robots.terms import SOURCES, TERMS, Field, OwnState, Source, Term

__all__ = [
    "SOURCES",
    "TERMS",
    "ActionMapper",
    "Embodiment",
    "Field",
    "ObservationAssembler",
    "OwnState",
    "Reward",
    "RobotState",
    "SafetyFilter",
    "SafetyResult",
    "SensorState",
    "Snapshot",
    "Source",
    "StateTracker",
    "Term",
    "TermBlock",
    "shipped_names",
]
