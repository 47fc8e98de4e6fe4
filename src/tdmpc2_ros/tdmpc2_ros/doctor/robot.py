"""Checks of a running robot, in the ROS graph: its sensors, controllers and planner."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from tdmpc2_core.doctor import Finding, fail, ok, warn
from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import SOURCES, Embodiment, SensorState
from tdmpc2_ros.messages import SourceTopic, source_topics

try:
    from controller_manager_msgs.srv import ListControllers
except ImportError:  # not among the wheels
    ListControllers = None

_CONTROLLERS = ("joint_trajectory_controller/joint_trajectory", "forward_position_controller/commands")
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
        """Whether every source of the observation is published, whole and recent."""
        return [self._sensor(row) for row in source_topics(self._embodiment) if SOURCES[row.source].measured]

    def _sensor(self, row: SourceTopic) -> Finding:
        topic, max_age = row.topic, self._embodiment.observation.max_ages.get(row.source)
        received: list[tuple[float, Any]] = []

        def now() -> float:
            return self._node.get_clock().now().nanoseconds * 1e-9

        def take(message: Any) -> None:
            received.append((now(), message))

        subscription = self._node.create_subscription(row.message, topic, take, row.profile)
        name = subscription.topic_name
        try:
            if not self._until(lambda: len(received) >= 3):
                publishers = self._node.count_publishers(name)
                found = f"{name}: {publishers} publishers, {len(received)} messages in {self._timeout:g} s"
                advice = (
                    "start the robot's drivers or the simulation, in this ROS_DOMAIN_ID; "
                    "--namespace names the robot's, --offline leaves the robot out"
                )
                return fail(topic, found, advice)
        finally:
            self._node.destroy_subscription(subscription)
        try:
            row.store(received[-1][1], SensorState(self._embodiment), now)
            stamps = [row.decode(message, self._embodiment).stamp for _, message in received]
        except SensorError as problem:
            return fail(topic, str(problem), "the planner refuses such messages: mend the driver, or --robot")
        ages = [
            arrival - stamp for (arrival, _), stamp in zip(received, stamps, strict=True) if stamp is not None
        ]
        if ages and max_age is not None and not -max_age <= min(ages) <= max_age:
            found = (
                f"{name}: stamps are {min(ages):.3g} s behind this clock, at most {max_age:g} s is accepted"
            )
            advice = (
                "synchronise the clocks (chrony), or set use_sim_time of planner where /clock is published"
            )
            return warn(topic, found, advice)
        return ok(topic, f"{name}, {1e3 * min(ages):.1f} ms old on arrival" if ages else name)

    def controllers(self) -> Finding:
        """A controller that takes commands: asked of the controller manager where one runs, else of DDS."""
        if ListControllers is not None:
            client = self._node.create_client(ListControllers, "controller_manager/list_controllers")
            if client.wait_for_service(timeout_sec=min(1.0, self._timeout)):
                return self._listed(client)
        names = {topic: self._node.resolve_topic_name(topic) for topic in _CONTROLLERS}
        if self._until(lambda: any(map(self._node.count_subscribers, names.values()))):
            there = [topic for topic, name in names.items() if self._node.count_subscribers(name)]
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

    def planner(self) -> Finding:
        """Whether exactly one planner commands this robot."""
        names = {topic: self._node.resolve_topic_name(topic) for topic in _CONTROLLERS}
        count = self._most(lambda: sum(map(self._node.count_publishers, names.values())))
        if count > 1:
            found = f"{count} publishers command the joints: " + ", ".join(
                f"{self._node.count_publishers(name)} on {topic}" for topic, name in names.items()
            )
            return fail("planner", found, "stop all but one; the robot would follow both in turn")
        if count == 0:
            return ok("planner", "none runs yet; the command topics are free")
        return ok("planner", "one node commands the joints")
