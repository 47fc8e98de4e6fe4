"""Rules between the sections of an embodiment file; each section checks its own values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdmpc2_core.robots.embodiment import Embodiment

_NEEDED_SECTIONS = {
    "command": "command",
    "gait_phase": "clock",
    "gyro": "imu_frame",
    "gravity": "imu_frame",
    "goal_position": "command",
    "goal_rotation": "command",
}
_NEEDED_KINDS = {"command": "twist", "goal_position": "pose", "goal_rotation": "pose"}


def check_rules(embodiment: Embodiment) -> None:
    """Raise ValueError with one sentence about the first rule that is broken."""
    _check_joints(embodiment)
    _check_rates(embodiment)
    for term, section in _NEEDED_SECTIONS.items():
        if embodiment.observation.has(term) and getattr(embodiment, section) is None:
            raise ValueError(f"observation.terms has {term}, which needs the key {section!r}")
    _check_command(embodiment)


def _check_joints(embodiment: Embodiment) -> None:
    names, margin = embodiment.joint_names, embodiment.safety.position_margin
    if not names:
        raise ValueError("joints.list must name at least one joint")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"joints.list has {', '.join(twice)} more than once; each joint may appear once")
    for joint in embodiment.joints:
        room = min(joint.default - joint.lower, joint.upper - joint.default)
        if margin > room:
            raise ValueError(
                f"safety.position_margin ({margin:g} rad) leaves the default of {joint.name!r} outside its "
                f"limits; at most {room:g} fits"
            )


def _check_rates(embodiment: Embodiment) -> None:
    steps = embodiment.physics_rate / embodiment.control_rate
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
        raise ValueError(
            f"physics_rate must be a whole multiple of control_rate ({embodiment.control_rate:g} Hz), "
            f"got {embodiment.physics_rate:g} Hz"
        )


def _check_command(embodiment: Embodiment) -> None:
    command, pose = embodiment.command, embodiment.pose_command
    for term, kind in _NEEDED_KINDS.items():
        if command and embodiment.observation.has(term) and command.kind != kind:
            raise ValueError(
                f"observation.terms has {term}, which needs command.kind {kind}, got {command.kind}"
            )
    if pose and len(pose.joint_span) != embodiment.num_joints:
        raise ValueError(
            f"command.joint_span must hold {embodiment.num_joints} values, one per joint, "
            f"got {len(pose.joint_span)}"
        )
