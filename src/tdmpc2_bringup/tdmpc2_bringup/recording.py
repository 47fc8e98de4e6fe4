"""What `ros2 bag record` and rosbag2's recorder node need to record what this suite's recorder records."""

from __future__ import annotations

from typing import Any

import yaml

from tdmpc2_core.robots import Embodiment
from tdmpc2_ros.messages import SOURCE_TOPICS, source_topics
from tdmpc2_ros.recorder.node import DEPTH, LATCHED, recorded_types

_OF_A_BASE, _OF_A_TOOL = "simulator/floating_base_state", "simulator/tool_pose"


def bag_topics(robot: Embodiment, namespace: str = "") -> list[str]:
    """Absolute names of the topics to record of a robot whose nodes are in `namespace`."""
    heard = {row.topic for row in source_topics(robot)}
    left_out = (SOURCE_TOPICS.keys() - heard) | {_OF_A_BASE if robot.pose_command else _OF_A_TOOL}
    return [_absolute(topic, namespace) for topic in recorded_types(False) if topic not in left_out]


def bag_qos(robot: Embodiment, namespace: str = "") -> dict[str, dict[str, Any]]:
    """QoS overrides by topic: queues that outlast a busy disk, latched topics, the clock as it is sent.

    rosbag2 asks for what the publishers offer where an override says nothing.
    """
    latched = {_absolute(topic, namespace) for topic in LATCHED}
    overrides = {}
    for topic in bag_topics(robot, namespace):
        profile: dict[str, Any] = {"history": "keep_last", "depth": DEPTH}
        if topic in latched:
            profile |= {"reliability": "reliable", "durability": "transient_local"}
        elif topic == "/clock":
            profile |= {"reliability": "best_effort", "durability": "volatile"}
        overrides[topic] = profile
    return overrides


def topics_text(robot: Embodiment) -> str:
    """A topic per line, as `--topics $(cat FILE)` takes them."""
    return "\n".join(bag_topics(robot)) + "\n"


def qos_text(robot: Embodiment, namespace: str = "") -> str:
    """The file for `--qos-profile-overrides-path`."""
    head = (
        f"# QoS overrides of ros2 bag record for {robot.name}; python -m tdmpc2_bringup.generate writes it.\n"
    )
    return head + str(yaml.safe_dump(bag_qos(robot, namespace), sort_keys=False))


def recorder_parameters(robot: Embodiment, output: str, qos_file: str, namespace: str = "") -> dict[str, Any]:
    """Parameters of the node `recorder` of rosbag2_transport."""
    return {
        "storage.uri": output,
        "storage.storage_id": "mcap",
        "record.topics": bag_topics(robot, namespace),
        "record.qos_profile_overrides_path": qos_file,
    }


def _absolute(topic: str, namespace: str) -> str:
    space = namespace.strip("/")
    return topic if topic.startswith("/") else f"/{space}/{topic}" if space else f"/{topic}"
