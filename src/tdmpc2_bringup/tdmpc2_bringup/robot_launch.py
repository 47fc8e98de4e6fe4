"""The launch descriptions, of one robot and of several: what `layout` says, as launch actions."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
    get_resource,
    get_resources,
)
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from tdmpc2_bringup.layout import CONFIGURED, THREADS, Gates, Include, Layout, NodeSpec, layout, own_clock
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import (
    SEVERAL,
    Argument,
    Settings,
    arguments,
    each_robot,
    settings_from,
    unknown_arguments,
)
from tdmpc2_ros.quickstart.processes import PRIORITY

Entities = list[LaunchDescriptionEntity]
OnExit = Callable[[ProcessExited, LaunchContext], Entities]
_MISTAKE = 2  # exit code of a user's mistake
_TIMED = ("planner", "supervisor", "mujoco_sim")  # programs whose ticks must not wait for others
_PAUSE = 1.0  # s before a planner that has ended is started again


def robot_launch_description(robot: str = "") -> LaunchDescription:
    """Launch arguments, all with defaults, and the nodes for a robot that tdmpc2_core ships.

    Without a name there is one argument more, `robot`, which has no default.
    """
    own = [] if robot else [DeclareLaunchArgument("robot", description="folder with embodiment.yaml")]
    known = {each.name for each in arguments()} | {each.name for each in own}

    def start(context: LaunchContext) -> Entities:
        given = context.launch_configurations
        settings = settings_from(given)
        robots = [(settings, _plan(robot or given["robot"], settings))]
        return _notes([unknown_arguments(given, known)]) + _start(robots)

    return LaunchDescription([*own, *_declared(arguments()), OpaqueFunction(function=start)])


def multi_robot_launch_description() -> LaunchDescription:
    """The same for several robots of a kind, which two arguments more name and count."""
    known = {each.name for each in (*SEVERAL, *arguments())}

    def start(context: LaunchContext) -> Entities:
        given = context.launch_configurations
        members = each_robot(settings_from(given), given["robots"])
        robots = [(one, own_clock(_plan(given["robot"], one), one)) for one in members]
        return _notes([unknown_arguments(given, known)]) + _start(robots)

    return LaunchDescription([*_declared(SEVERAL), *_declared(arguments()), OpaqueFunction(function=start)])


def _declared(launch_arguments: Iterable[Argument]) -> Entities:
    return [
        DeclareLaunchArgument(
            each.name,
            default_value=each.default,
            description=each.why,
            choices=list(each.choices) or None,
        )
        for each in launch_arguments
    ]


def _plan(robot: str, settings: Settings) -> Layout:
    """What is started for a robot. A UserError becomes launch's own one-line error."""
    share = Path(get_package_share_directory("tdmpc2_bringup"))
    return layout(RobotFiles(robot, settings, share), _installed, _hardware_plugins())


def _hardware_plugins() -> set[str]:
    """Names of the hardware plug-ins that packages have registered with pluginlib."""
    kind, found = "hardware_interface__pluginlib__plugin", set()
    for package, prefix in get_resources(kind).items():
        for line in get_resource(kind, package)[0].split():
            with suppress(OSError, ElementTree.ParseError):  # a broken package is its maker's to mend
                classes = ElementTree.parse(Path(prefix) / line).getroot().iter("class")
                found |= {each.get("name") or each.get("type", "").replace("::", "/") for each in classes}
    return found


def _notes(texts: Iterable[str]) -> Entities:
    return [LogInfo(msg=text) for text in dict.fromkeys(texts) if text]


def _start(robots: list[tuple[Settings, Layout]]) -> Entities:
    """Everything of all robots, once all of them are known to be right."""
    actions = _notes(note for _, plan in robots for note in plan.notes)
    essentials = _Essentials()
    for settings, plan in robots:
        gates = _PlannerGates(settings.namespace)
        actions += [_include(each) for each in plan.includes]
        for spec in plan.nodes:
            if spec.role == "planner":
                actions += _Planner(spec, settings, plan.autostart, gates, essentials).start()
            else:
                actions.append(_node(spec, settings, _on_exit(spec, settings, essentials, gates)))
    return actions


def _installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def _include(include: Include) -> IncludeLaunchDescription:
    file = Path(get_package_share_directory(include.package)) / "launch" / include.file
    source = PythonLaunchDescriptionSource(str(file))
    return IncludeLaunchDescription(source, launch_arguments=list(include.arguments.items()))


def _on_exit(
    spec: NodeSpec, settings: Settings, essentials: _Essentials, gates: _PlannerGates
) -> OnExit | None:
    if spec.role == "essential":
        return essentials.add(_named(settings.namespace, spec.executable))
    return gates.add(spec.executable) if spec.role == "gate" else None


def _node(spec: NodeSpec, settings: Settings, on_exit: OnExit | None) -> Node:
    kind = LifecycleNode if spec.role == "planner" else Node
    log = ["--log-level", settings.log_level] if spec.ours else []
    threads = {name: os.environ.get(name, value) for name, value in THREADS.items()}
    return kind(
        package=spec.package,
        executable=spec.executable,
        name=spec.name or None,
        namespace=settings.namespace,
        parameters=[_typed(each) for each in spec.parameters],
        arguments=list(spec.arguments),
        remappings=list(spec.remappings),
        output="screen",
        emulate_tty=True,
        ros_arguments=log,
        on_exit=on_exit,
        additional_env=threads if spec.ours else {},
        prefix=_before_others() if spec.executable in _TIMED else None,
    )


@functools.cache
def _before_others() -> str | None:
    """What starts a process before ordinary ones; None where the system does not allow it (root,
    CAP_SYS_NICE or the limit rtprio of limits.conf), and latencies depend on what else runs."""
    start = ("chrt", "--rr", str(PRIORITY))
    if shutil.which(start[0]) is None:
        return None
    allowed = subprocess.run([*start, "true"], stderr=subprocess.DEVNULL).returncode == 0
    return " ".join(start) if allowed else None


def _typed(parameters: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """Texts stay texts: launch would read a robot description as YAML."""
    if isinstance(parameters, str):
        return parameters
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def _named(namespace: str, name: str) -> str:
    """A process in messages: by its namespace too, where it has one."""
    return f"{namespace}/{name}".strip("/")


class _Essentials:
    """Processes of role essential: the first that ends ends the launch, with all its robots."""

    def __init__(self) -> None:
        self.ended = False

    def add(self, name: str) -> OnExit:
        """What a process does when it ends."""
        return lambda event, context: self.end(f"{name} ended", context)

    def end(self, reason: str, context: LaunchContext) -> Entities:
        """The end of the launch. Launch fails on a second shutdown, so there is one at most."""
        if self.ended or context.is_shutdown:
            return []
        self.ended = True
        return [LogInfo(msg=f"{reason}; the launch ends"), Shutdown(reason=reason)]


class _PlannerGates:
    """What must happen before the planner in a namespace is activated: its configuration, the gates."""

    def __init__(self, namespace: str) -> None:
        self.namespace, self.gates = namespace, Gates()
        self.activate: EmitEvent | None = None

    def add(self, name: str) -> OnExit:
        """What a process of role gate does when it ends."""
        gate = self.gates.add(name)

        def ended(event: ProcessExited, context: LaunchContext) -> Entities:
            if context.is_shutdown:
                return []
            if event.returncode:
                named = _named(self.namespace, name)
                return [LogInfo(msg=f"{named} failed, for the reason above; the planner stays inactive")]
            return self.open(gate)

        return ended

    def open(self, gate: str) -> Entities:
        """Note that something has happened; the activation when it was the last."""
        last = self.gates.open(gate)
        return [self.activate] if last and self.activate is not None else []


class _Planner:
    """The planner of one robot: started, brought to active, and what follows when it ends by itself."""

    def __init__(
        self,
        spec: NodeSpec,
        settings: Settings,
        autostart: bool,
        gates: _PlannerGates,
        essentials: _Essentials,
    ) -> None:
        self._spec, self._settings, self._autostart = spec, settings, autostart
        self._gates, self._essentials = gates, essentials
        self._name = _named(settings.namespace, "planner")

    def start(self) -> Entities:
        """The process, and its way to active where it is started automatically."""
        node = _node(self._spec, self._settings, self._ended)
        return [node, *(self._bring_to_active(node) if self._autostart else [])]

    def _ended(self, event: ProcessExited, context: LaunchContext) -> Entities:
        if context.is_shutdown:
            return []
        how = f"{self._name} ended with code {event.returncode}"
        choice = self._settings.on_planner_exit
        if choice == "shutdown":
            return self._essentials.end(how, context)
        if choice == "ignore" or event.returncode == _MISTAKE:  # which another start would repeat
            return [LogInfo(msg=f"{how}; the controller holds its last target")]
        again = OpaqueFunction(function=lambda _: self._restart())
        return [LogInfo(msg=f"{how}; it is started again"), TimerAction(period=_PAUSE, actions=[again])]

    def _restart(self) -> Entities:
        """The process again. It brings itself to active: for a while DDS takes the services of the one that
        was killed for its own, and what launch asks of them is lost."""
        self._gates.activate = None
        spec = replace(self._spec, parameters=(*self._spec.parameters, {"autostart": self._autostart}))
        return [_node(spec, self._settings, self._ended)]

    def _refused(self, context: LaunchContext) -> Entities:
        refused = f"{self._name} refused its configuration, for the reason above"
        if self._settings.sim == "none":  # on hardware the controllers go on to hold the robot
            return [LogInfo(msg=f"{refused}; it stays idle")]
        return [LogInfo(msg=refused), *self._essentials.end(f"{self._name} cannot start", context)]

    def _bring_to_active(self, node: Node) -> Entities:
        """Configure the node now, and activate it once it is configured and the gates are open."""
        gates = self._gates
        gates.activate = _change_state(node, Transition.TRANSITION_ACTIVATE)
        return [
            RegisterEventHandler(
                OnStateTransition(
                    target_lifecycle_node=node,
                    start_state="configuring",
                    goal_state="inactive",
                    entities=[OpaqueFunction(function=lambda _: gates.open(CONFIGURED))],
                )
            ),
            RegisterEventHandler(
                OnStateTransition(
                    target_lifecycle_node=node,
                    start_state="configuring",
                    goal_state="unconfigured",
                    entities=[OpaqueFunction(function=self._refused)],
                )
            ),
            _change_state(node, Transition.TRANSITION_CONFIGURE),
        ]


def _change_state(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))
