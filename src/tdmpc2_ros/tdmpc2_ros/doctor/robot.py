"""Checks of a running robot, in the ROS graph: its sensors, controllers and planner."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from tdmpc2_core.doctor import Finding, fail, ok, warn
from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import SOURCES, Embodiment, SensorState
from tdmpc2_core.robots.messages import EPOCH, Reading, to_seconds
from tdmpc2_core.robots.sensors import GravityCheck
from tdmpc2_ros import qos
from tdmpc2_ros.messages import SourceTopic, source_topics, type_name
from tdmpc2_ros.naming import SUPERVISOR

try:
    from controller_manager_msgs.srv import ListControllers
except ImportError:  # not among the wheels
    ListControllers = None

_CONTROLLERS = {
    "joint_trajectory_controller/joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "forward_position_controller/commands": "std_msgs/msg/Float64MultiArray",
}
_PARTS = 1.0  # s in which every part of a source that comes in several messages has come
_SETTLED = 3.5  # s; a DDS participant whose first announcements were lost makes itself known within 3


class RunningRobot:
    """A node that looks around for at most `timeout` s per question. Use as a context manager."""

    def __init__(self, embodiment: Embodiment, namespace: str, timeout: float) -> None:
        self._embodiment, self._timeout = embodiment, timeout
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node: Node = rclpy.create_node("doctor", namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._clock: list[float] = []  # s, what came on /clock
        self._stamps: dict[str, tuple[float, bool]] = {}  # by topic: the newest, and whether it is simulated
        self._node.create_subscription(Clock, "/clock", self._on_clock, qos.CLOCK)

    def _on_clock(self, message: Clock) -> None:
        self._clock[:] = [to_seconds(message.clock)]

    def __enter__(self) -> RunningRobot:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _until(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Spin until the condition holds; False when it does not within the time."""
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        while not condition():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def _most(self, count: Callable[[], int]) -> int:
        """`count` once it has not risen for ``_SETTLED`` s: nodes are discovered one by one."""
        most, since = count(), time.monotonic()
        patience = min(_SETTLED, self._timeout)

        def settled() -> bool:
            nonlocal most, since
            if count() > most:
                most, since = count(), time.monotonic()
            return time.monotonic() - since >= patience

        self._until(settled)
        return most

    def sensors(self) -> list[Finding]:
        """Whether every source of the observation is published, whole and recent, by one clock."""
        rows = [row for row in source_topics(self._embodiment) if SOURCES[row.source].measured]
        findings = [self._sensor(row) for row in rows]
        clocks = {is_simulated for _, is_simulated in self._stamps.values()}
        if len(clocks) > 1:
            named = {True: "simulated", False: "system"}
            told = ", ".join(f"{topic} {named[sim]} time" for topic, (_, sim) in self._stamps.items())
            advice = "give all nodes the same use_sim_time"
            findings.append(fail("clock", f"stamps are of two clocks: {told}", advice))
        elif clocks == {True} and not self._clock:
            found = "stamps are of simulated time, but nothing comes on /clock"
            advice = "start what publishes /clock, or set use_sim_time of no node"
            findings.append(fail("clock", found, advice))
        return findings

    def _sensor(self, row: SourceTopic) -> Finding:
        topic, state, gravity = row.topic, SensorState(self._embodiment), GravityCheck()
        ages: list[float] = []
        refusals: list[str] = []
        first: list[float] = []  # steady s of the first that was taken

        def check(reading: Reading) -> None:
            if reading.stamp is not None:
                row.check_time(reading.stamp, self._now_as(reading.stamp), self._embodiment)
            if reading.stamp is not None and "acceleration" in reading.fields:
                gravity.check(reading.stamp, reading.fields["orientation"], reading.fields["acceleration"])

        def take(message: Any) -> None:
            given = to_seconds(message.header.stamp)
            now = self._now_as(given)
            self._stamps[topic] = given, 0.0 < given < EPOCH
            try:
                stamp = row.store(message, state, lambda: now, check)
            except SensorError as problem:
                refusals.append(str(problem))
                return
            if stamp is not None:
                ages.append(now - stamp)
                first[1:] = [time.monotonic()]

        def enough() -> bool:
            patient = not first or time.monotonic() - first[0] < _PARTS
            whole = vars(state.snapshot())[row.source] is not None
            return len(refusals) >= 3 or (len(ages) >= 3 and (whole or not patient))

        subscription = self._node.create_subscription(row.message, topic, take, row.profile)
        name = subscription.topic_name
        self._until(enough)
        problem = row.mismatch(self._node, name)
        publishers = self._node.count_publishers(name)
        self._node.destroy_subscription(subscription)
        if problem:
            return fail(topic, problem, "publisher and planner must use the same type")
        if refusals:
            return fail(topic, refusals[-1], "the planner refuses such messages: mend the driver, or --robot")
        missing = [each for each in state.stale(0.0) if each.startswith(f"{row.source}: ")]
        if vars(state.snapshot())[row.source] is None and (ages or "name none" in missing[0]):
            return fail(topic, missing[0], "mend the driver, or name the robot that runs with --robot")
        if len(ages) < 3:
            found = f"{name}: {publishers} publishers, {len(ages)} messages in {self._timeout:g} s"
            advice = (
                "start the robot's drivers or the simulation, in this ROS_DOMAIN_ID; "
                "--namespace names the robot's, --offline leaves the robot out"
            )
            return fail(topic, found, advice)
        return self._judged(row, name, ages)

    def _judged(self, row: SourceTopic, name: str, ages: list[float]) -> Finding:
        """What the ages (s) of messages on arrival say."""
        max_age = self._embodiment.observation.max_ages.get(row.source)
        if max_age is not None and not -max_age <= min(ages) <= max_age:
            found = (
                f"{name}: stamps are {min(ages):.3g} s behind this clock, at most {max_age:g} s is accepted"
            )
            return warn(row.topic, found, "synchronise the clocks of sender and planner (chrony)")
        simulated = ", of simulated time" if self._stamps[row.topic][1] else ""
        return ok(row.topic, f"{name}, {1e3 * min(ages):.1f} ms old on arrival{simulated}")

    def _now_as(self, stamp: float) -> float:
        """The clock that a stamp (s) is of: the simulation's where it is small and /clock runs."""
        if stamp < EPOCH and self._clock:
            return self._clock[-1]
        return float(self._node.get_clock().now().nanoseconds * 1e-9)

    def commands(self) -> list[Finding]:
        """Whether those who send commands, to the planner and from it, and those who listen use one type."""
        names = {topic: self._node.resolve_topic_name(topic) for topic in self._inputs()}
        self._most(lambda: sum(map(self._node.count_publishers, names.values())))
        findings = []
        for topic, kinds in self._inputs().items():
            name = names[topic]
            sent = {info.topic_type for info in self._node.get_publishers_info_by_topic(name)}
            heard = {info.topic_type for info in self._node.get_subscriptions_info_by_topic(name)}
            deaf = sent - (heard or kinds)
            if deaf:
                listened = ", ".join(sorted(heard or kinds))
                found = f"{name} is sent as {', '.join(sorted(deaf))}, and heard as {listened}"
                advice = "send the type that is heard"
                if topic == "cmd_vel":
                    advice += ", or set the parameter cmd_vel_stamped of the planner"
                findings.append(fail(topic, found, advice))
        return findings

    def _inputs(self) -> dict[str, set[str]]:
        """Topics of commands and the types that they may have."""
        rows = [row for row in source_topics(self._embodiment) if not SOURCES[row.source].measured]
        kinds = {row.topic: {type_name(k) for k in (row.message, row.stamped) if k} for row in rows}
        return kinds | {topic: {kind} for topic, kind in _CONTROLLERS.items()}

    def controllers(self) -> Finding:
        """A controller that takes commands: asked of the controller manager where one runs, else of DDS."""
        if ListControllers is not None:
            client = self._node.create_client(ListControllers, "controller_manager/list_controllers")
            if client.wait_for_service(timeout_sec=min(1.0, self._timeout)):
                return self._listed(client)
        names = {topic: self._node.resolve_topic_name(topic) for topic in _CONTROLLERS}
        if self._until(lambda: any(map(self._listeners, names.values()))):
            there = [topic for topic, name in names.items() if self._listeners(name)]
            return ok("controllers", f"somebody listens to {', '.join(there)}")
        found = f"nobody listens to {' or '.join(names.values())}"
        advice = "ros2 run controller_manager spawner joint_trajectory_controller, or start the simulation"
        return fail("controllers", found, advice)

    def _listed(self, client: Any) -> Finding:
        future = client.call_async(ListControllers.Request())
        advice = "see the log of controller_manager"
        if not self._until(future.done):
            return fail("controllers", "controller_manager does not answer", advice)
        wanted = {topic.split("/")[0] for topic in _CONTROLLERS}
        states = {item.name: item.state for item in future.result().controller if item.name in wanted}
        active = [name for name, state in states.items() if state == "active"]
        if len(active) == 1:
            return ok("controllers", f"{active[0]} is active")
        known = ", ".join(f"{name} {state}" for name, state in states.items()) or "none is loaded"
        activate = "ros2 control switch_controllers --activate joint_trajectory_controller"
        return fail("controllers", f"{len(active)} active command controllers ({known})", activate)

    def _listeners(self, topic: str) -> int:
        """Nodes that listen to a command topic, but for the supervisor, which is no controller."""
        return sum(info.node_name != SUPERVISOR for info in self._node.get_subscriptions_info_by_topic(topic))

    def _senders(self, topic: str) -> int:
        """Nodes that send to a command topic, but for the supervisor, which is silent beside a planner."""
        return sum(info.node_name != SUPERVISOR for info in self._node.get_publishers_info_by_topic(topic))

    def planner(self) -> Finding:
        """Whether exactly one planner commands this robot."""
        names = {topic: self._node.resolve_topic_name(topic) for topic in _CONTROLLERS}
        count = self._most(lambda: sum(map(self._senders, names.values())))
        if count > 1:
            found = f"{count} publishers command the joints: " + ", ".join(
                f"{self._senders(name)} on {topic}" for topic, name in names.items()
            )
            return fail("planner", found, "stop all but one; the robot would follow both in turn")
        if count == 0:
            return ok("planner", "none runs yet; the command topics are free")
        return ok("planner", "one node commands the joints")
