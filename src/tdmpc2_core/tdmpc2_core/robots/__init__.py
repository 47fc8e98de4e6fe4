"""Robots without learning: description, sensors, observation, action, safety. numpy only.

Used unchanged by training, the simulation node, the planner node and bag replay.
"""

from tdmpc2_core.robots.action import ActionMapper
from tdmpc2_core.robots.embodiment import Embodiment, TermBlock, shipped_names
from tdmpc2_core.robots.observation import ObservationAssembler
from tdmpc2_core.robots.safety import SafetyFilter, SafetyResult
from tdmpc2_core.robots.sensors import CommandSample, ImuSample, JointSample, SensorState, Snapshot

__all__ = [
    "ActionMapper",
    "CommandSample",
    "Embodiment",
    "ImuSample",
    "JointSample",
    "ObservationAssembler",
    "SafetyFilter",
    "SafetyResult",
    "SensorState",
    "Snapshot",
    "TermBlock",
    "shipped_names",
]
