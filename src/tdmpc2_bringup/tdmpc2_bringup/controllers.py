"""The controllers' configuration of an embodiment, as text for ros2_control."""

from __future__ import annotations

from typing import Literal

from tdmpc2_core.robots import Embodiment

CommandInterface = Literal["position", "effort"]

BROADCASTERS = ("joint_state_broadcaster", "imu_sensor_broadcaster")
COMMAND_CONTROLLERS: dict[str, CommandInterface] = {
    "joint_trajectory_controller": "position",
    "forward_position_controller": "position",
    "effort_trajectory_controller": "effort",
}
"""What the planner can drive, and the command interface that each needs."""


_FROM_DESIRED = (
    "    # A chunk goes on from the target of the moment, as in training. By default it goes on from the",
    "    # measured position, 50 times a second: the drives lose the offset that carries the robot, it sags.",
    "    interpolate_from_desired_state: true",
)


def broadcasters(embodiment: Embodiment) -> tuple[str, ...]:
    """Those that the robot has sensors for."""
    return BROADCASTERS if embodiment.imu_frame else BROADCASTERS[:1]


def controllers_text(embodiment: Embodiment, prefix: str = "") -> str:
    """YAML for the controller manager, its spawners and Gazebo; `prefix` goes before joints and frames."""
    imu = embodiment.imu_frame
    trajectory = "joint_trajectory_controller/JointTrajectoryController"
    lines = [
        f"# ros2_control for the {embodiment.name}: controller manager, spawners and Gazebo read this file,",
        f"# made from {embodiment.name}'s embodiment.yaml: change that. The keys hold in every namespace.",
        "/**/controller_manager:",
        "  ros__parameters:",
        "    # Hz, the simulator's steps: under sim time a period that is no multiple of them is rounded up",
        f"    update_rate: {embodiment.physics_rate:g}",
        "    enforce_command_limits: true  # off by default on Jazzy",
        "    joint_state_broadcaster: {type: joint_state_broadcaster/JointStateBroadcaster}",
    ]
    if imu:
        lines += ["    imu_sensor_broadcaster: {type: imu_sensor_broadcaster/IMUSensorBroadcaster}"]
    lines += [
        f"    joint_trajectory_controller: {{type: {trajectory}}}",
        "    forward_position_controller: {type: forward_command_controller/ForwardCommandController}",
        f"    effort_trajectory_controller: {{type: {trajectory}}}",
        "",
    ]
    if imu:
        lines += [
            "/**/imu_sensor_broadcaster:",
            "  ros__parameters:",
            f"    sensor_name: {prefix}imu",
            f"    frame_id: {prefix}{imu}",
            "",
        ]
    joints = ["    joints:", *(f"      - {prefix}{name}" for name in embodiment.joint_names)]
    lines += [
        "# Default. Plays the planner's chunks of positions and holds the last one when they stop.",
        "/**/joint_trajectory_controller:",
        "  ros__parameters:",
        "    command_interfaces: [position]",
        "    state_interfaces: [position, velocity]",
        *_FROM_DESIRED,
        *joints,
        "",
        "# Alternative. It has no timeout: the last command acts for ever.",
        "/**/forward_position_controller:",
        "  ros__parameters:",
        "    interface_name: position",
        *joints,
        "",
        "# Alternative for drives that take torque: the PD control of the training simulation.",
        "/**/effort_trajectory_controller:",
        "  ros__parameters:",
        "    command_interfaces: [effort]",
        "    state_interfaces: [position, velocity]",
        *_FROM_DESIRED,
        *joints,
        "    gains:",
        *(
            f"      {prefix}{joint.name}: {{p: {float(joint.kp)}, i: 0.0, d: {float(joint.kd)}}}"
            for joint in embodiment.joints
        ),
    ]
    return "\n".join(lines) + "\n"
