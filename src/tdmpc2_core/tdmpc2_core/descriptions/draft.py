"""A first embodiment.yaml for a robot of which only the URDF is known; every number is to be reviewed."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

_SAG = 0.5  # rad (or m) of error at which a drive gives its full effort: sets kp
_DAMPING = 0.5  # share of critical damping: sets kd
_REACH = 0.5  # rad, largest change of a target that an action asks for


@dataclass
class Drive:
    """A joint as the URDF has it; `inertia` is what its drive feels in the default pose, kg m^2."""

    name: str
    lower: float
    upper: float
    effort: float
    velocity: float
    inertia: float = 0.0

    @property
    def default(self) -> float:
        """Zero where the limits allow it, else the nearest tenth of the range inside."""
        room = 0.1 * (self.upper - self.lower)
        return round(min(max(0.0, self.lower + room), self.upper - room), 4)

    @property
    def kp(self) -> float:
        """Proportional gain, N m/rad."""
        return round(self.effort / _SAG, 3)

    @property
    def kd(self) -> float:
        """Damping gain, N m s/rad."""
        return round(2.0 * _DAMPING * (self.kp * self.inertia) ** 0.5, 4)

    @property
    def action_scale(self) -> float:
        """Change of the target for a full action, rad."""
        return round(min(_REACH, 0.25 * (self.upper - self.lower)), 4)


def draft_embodiment(
    name: str, base: str, imu: str, drives: list[Drive], height: float | None, physics_rate: float
) -> str:
    """The YAML of a robot that is to follow a forward and a turning command, or of one bolted down.

    `height` is that of the base at rest, m, and None for a robot bolted to the world, whose draft rewards
    keeping the default pose.
    """
    keys = ("name", "default", "lower", "upper", "action_scale", "kp", "kd", "velocity", "effort")
    joints = [{key: getattr(drive, key) for key in keys} for drive in drives]
    measured = {"source": "joints", "max_age": 0.06}
    terms = [
        {"name": "joint_position", "noise": 0.01, **measured},
        {"name": "joint_velocity", "scale": 0.05, "noise": 0.5, **measured},
        {"name": "previous_action", "source": "self", "history": 1},
    ]
    penalties = [{"name": "action_rate", "weight": -0.02}, {"name": "effort", "weight": -0.0001}]
    rest: dict[str, object] = {}
    if height is not None:
        inertial = {"source": "imu", "max_age": 0.06}
        terms = [
            {"name": "gyro", "scale": 0.25, "noise": 0.1, **inertial},
            {"name": "gravity", "noise": 0.02, **inertial},
            *terms,
            {"name": "command", "source": "command", "history": 1},
        ]
        rest = {
            "command": {
                "terms": [
                    {"name": "linear_x", "lower": -0.3, "upper": 0.3},
                    {"name": "angular_z", "lower": -0.5, "upper": 0.5},
                ],
                "deadband": 0.05,
                "stand_fraction": 0.15,
            },
            "reset": {"base_height": round(height, 4), "joint_noise": 0.05, "velocity_noise": 0.1},
            "reward": {
                "velocity_time_constant": 0.25,
                "terms": [
                    {"name": "track_linear_velocity", "weight": 1.0, "sigma": 0.15},
                    {"name": "track_yaw_rate", "weight": 0.5, "sigma": 0.3},
                    {"name": "upright", "weight": 0.3, "sigma": 0.2},
                    *penalties,
                ],
            },
            "termination": {"max_tilt": 1.0, "min_base_height": round(0.5 * height, 4)},
        }
    else:
        rest = {"reward": {"terms": [{"name": "stand_pose", "weight": -1.0}, *penalties]}}
    content = {
        "format": 1,
        "name": name,
        "task": "follow the commanded velocity" if height is not None else "keep the default pose",
        "model": f"{name}.xml",
        "control_rate": 50.0,
        "physics_rate": physics_rate,
        "base_frame": base,
        **({"imu_frame": imu} if height is not None else {}),
        "joints": {"list": joints},
        "observation": {"history": 3, "terms": terms},
        **rest,
    }
    head = (
        "# Drafted from a URDF. Review every number: default pose, gains, action_scale, commands, reward.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
