"""A two-joint robot for tests: small enough to compute its observations by hand."""

from __future__ import annotations

import copy
from typing import Any

from tdmpc2_core.robots import Embodiment

MAPPING: dict[str, Any] = {
    "name": "small",
    "model": "small.xml",
    "control_rate": 50.0,
    "physics_rate": 200.0,
    "imu_frame": "imu_link",
    "joints": {
        "defaults": {"kp": 10.0, "kd": 1.0, "velocity": 20.0, "effort": 5.0},
        "list": [
            {"name": "hip", "default": 0.1, "lower": -1.0, "upper": 1.0, "action_scale": 0.5},
            {
                "name": "knee",
                "default": -1.5,
                "lower": -2.5,
                "upper": -0.5,
                "action_scale": 2.0,
                "effort": 8.0,
            },
        ],
    },
    "command": {
        "terms": [
            {"name": "linear_x", "lower": -0.5, "upper": 1.0},
            {"name": "angular_z", "lower": -1.0, "upper": 1.0},
        ],
        "deadband": 0.1,
        "timeout": 0.5,
    },
    "clock": {"frequency": 12.5},
    "observation": {
        "history": 2,
        "terms": [
            {"name": "gyro", "source": "imu", "scale": 0.5, "noise": 0.1, "max_age": 0.06},
            {"name": "gravity", "source": "imu", "max_age": 0.06},
            {"name": "joint_position", "source": "joints", "max_age": 0.05},
            {"name": "joint_velocity", "source": "joints", "scale": 0.25, "max_age": 0.08},
            {"name": "previous_action", "source": "self"},
            {"name": "command", "source": "command", "scale": 2.0, "history": 1},
            {"name": "gait_phase", "source": "self", "history": 1},
        ],
    },
    "safety": {"max_target_rate": 10.0},
}


def small_mapping() -> dict[str, Any]:
    """A private copy of the mapping, to be changed at will."""
    return copy.deepcopy(MAPPING)


def small_robot(**sections: Any) -> Embodiment:
    """The robot, with top-level keys replaced."""
    return Embodiment.from_dict({**small_mapping(), **sections})
