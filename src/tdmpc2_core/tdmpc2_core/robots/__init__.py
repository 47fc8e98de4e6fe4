"""Robots without learning: description, sensors, observation, action, safety. numpy only.

Used unchanged by training, the simulation node, the planner node and bag replay.
"""

from .action import ActionMapper
from .embodiment import Embodiment, TermBlock, shipped_names
from .observation import ObservationAssembler
from .safety import SafetyFilter, SafetyResult
from .sensors import CommandSample, ImuSample, JointSample, SensorState, Snapshot

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
