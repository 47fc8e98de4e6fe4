"""Which topic of a bag is what to a robot's control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tdmpc2_core.data.bags.storage import Channel
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.messages import SOURCE_INPUTS, SourceInput


class Role(NamedTuple):
    """What a topic is for: its name ends with one of `topics`, its type is one of `kinds`.

    A single topic of the type serves under any name where `unique` says so.
    """

    name: str
    topics: tuple[str, ...]
    kinds: tuple[str, ...]
    unique: bool = False


_NUMBERS = "std_msgs/msg/Float64MultiArray"
OTHERS = (
    Role(
        "trajectory",
        ("joint_trajectory_controller/joint_trajectory", "joint_trajectory"),
        ("trajectory_msgs/msg/JointTrajectory",),
        unique=True,
    ),
    Role("forward", ("forward_position_controller/commands", "commands"), (_NUMBERS,)),
    Role("odometry", ("simulator/floating_base_state", "odom"), ("nav_msgs/msg/Odometry",), unique=True),
    Role("decision", ("planner/decision", "decision"), (_NUMBERS,)),
    Role("plan", ("planner/plan",), ("tdmpc2_msgs/msg/PlanChunk",), unique=True),
    Role("status", ("planner/status",), ("tdmpc2_msgs/msg/PlannerStatus",), unique=True),
)
"""Roles beside the sources of control."""


def inputs(robot: Embodiment) -> tuple[SourceInput, ...]:
    """How the robot's sources travel."""
    kind = robot.command.kind if robot.command else None
    rows = SOURCE_INPUTS.values()
    return tuple(row for row in rows if row.source in robot.sources and row.command in (None, kind))


def roles(robot: Embodiment) -> tuple[Role, ...]:
    """All roles that topics may have for the robot."""
    own = [
        Role(
            row.source,
            (row.topic, *((row.topic.rpartition("/")[2],) if row.source == "imu" else ())),
            tuple(kind for kind in (row.message, row.stamped) if kind),
            unique=row.source != "command",
        )
        for row in inputs(robot)
    ]
    return (*own, *OTHERS)


class Assignment(NamedTuple):
    """Topics by role, and one sentence per topic of a known name but another type."""

    topics: dict[str, str]
    refused: list[str]


def assign(
    channels: Iterable[Channel],
    robot: Embodiment,
    namespace: str = "",
    given: Mapping[str, str] | None = None,
) -> Assignment:
    """Find the topic of each role.

    Args:
        namespace: topics outside it are left alone, but for absolute ones such as /clock.
        given: topics by role that the user names.

    Raises:
        UserError: several topics fit one role, or a given one is not in the bag.
    """
    there = {channel.topic: channel.kind for channel in channels}
    found, refused, given = dict[str, str](), list[str](), dict(given or {})
    known = roles(robot)
    for name, topic in given.items():
        if name not in {role.name for role in known}:
            raise UserError(f"--topic {name}: accepted are {', '.join(role.name for role in known)}")
        if topic not in there:
            raise UserError(f"--topic {name}={topic}: the bag has no such topic")
    inside = {topic: kind for topic, kind in there.items() if topic.startswith(_prefix(namespace))}
    for role in known:
        if role.name in given:
            found[role.name] = given[role.name]
            continue
        topic, sentence = _find(role, inside)
        if topic:
            found[role.name] = topic
        if sentence:
            refused.append(sentence)
    return Assignment(found, refused)


def _prefix(namespace: str) -> str:
    inner = namespace.strip("/")
    return f"/{inner}/" if inner else ""


def _find(role: Role, there: Mapping[str, str]) -> tuple[str, str]:
    """The topic, and what is wrong with others of the name."""
    refused = ""
    for ending in role.topics:
        named = sorted(topic for topic in there if f"/{topic.lstrip('/')}".endswith(f"/{ending}"))
        fitting = [topic for topic in named if there[topic] in role.kinds]
        if len(fitting) > 1:
            raise UserError(
                f"{role.name}: {' and '.join(fitting)} fit; choose with --namespace, or --topic {role.name}="
                f"{fitting[0]}"
            )
        if fitting:
            return fitting[0], refused
        if named and "/" in ending or named and role.name in ("joints", "command"):
            refused = f"{named[0]}: is a {there[named[0]]}, {' or '.join(role.kinds)} is needed"
    alone = [topic for topic, kind in there.items() if kind in role.kinds]
    return (alone[0] if role.unique and len(alone) == 1 else ""), refused
