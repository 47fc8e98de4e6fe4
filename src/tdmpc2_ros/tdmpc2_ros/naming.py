"""Names where several robots share one domain: namespaces; joints and frames in messages."""

from __future__ import annotations

from dataclasses import replace

from tdmpc2_core.robots import Embodiment

MAX_ROBOTS = 8
"""As many go together."""


def robot_name(number: int) -> str:
    """Namespace of one of several robots, which count from 1."""
    return f"robot{number}"


def prefixed(embodiment: Embodiment, prefix: str) -> Embodiment:
    """The embodiment as messages name it: `prefix` before its joints and frames, all else the same.

    It is for reading and writing messages; its joints are not those of the MJCF.
    """
    if not prefix:
        return embodiment
    joints = tuple(replace(joint, name=prefix + joint.name) for joint in embodiment.joints)
    imu = prefix + embodiment.imu_frame if embodiment.imu_frame else None
    posture = {prefix + name: target for name, target in embodiment.safety.posture.items()}
    safety = replace(embodiment.safety, posture=posture)
    base = prefix + embodiment.base_frame
    return replace(embodiment, joints=joints, safety=safety, base_frame=base, imu_frame=imu)
