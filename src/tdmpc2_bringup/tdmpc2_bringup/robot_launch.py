"""The launch description of every robot: what `layout` says, as launch actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
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
)
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from tdmpc2_bringup.layout import layout
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import arguments, settings_from
from tdmpc2_bringup.specs import Include, NodeSpec

Entities = list[LaunchDescriptionEntity]


def robot_launch_description(robot: str = "") -> LaunchDescription:
    """Launch arguments, all with defaults, and the nodes for a robot that tdmpc2_core ships.

    Without a name there is one argument more, `robot`, which has no default.
    """
    own = [] if robot else [DeclareLaunchArgument("robot", description="folder with embodiment.yaml")]
    declared = [
        DeclareLaunchArgument(
            each.name,
            default_value=each.default,
            description=each.why,
            choices=list(each.choices) or None,
        )
        for each in arguments()
    ]
    return LaunchDescription([*own, *declared, OpaqueFunction(function=_start, args=[robot])])


def _start(context: LaunchContext, robot: str) -> Entities:
    """Everything, once the arguments are known. A UserError becomes launch's own one-line error."""
    given = context.launch_configurations
    settings = settings_from(given)
    share = Path(get_package_share_directory("tdmpc2_bringup"))
    plan = layout(RobotFiles(robot or given["robot"], settings, share), _installed)
    gates = _Gates()
    actions: Entities = [LogInfo(msg=note) for note in plan.notes]
    actions += [_include(each) for each in plan.includes]
    planner: LifecycleNode | None = None
    for spec in plan.nodes:
        node = _node(spec, settings.namespace, settings.log_level, gates)
        actions.append(node)
        if spec.role == "planner":
            planner = node
    if planner is not None and plan.autostart:
        actions += _bring_to_active(planner, gates)
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


def _node(spec: NodeSpec, namespace: str, log_level: str, gates: _Gates) -> Node:
    kind = LifecycleNode if spec.role == "planner" else Node
    log = ["--log-level", log_level] if spec.ours else []
    on_exit = None
    if spec.role == "essential":
        on_exit = _end(f"{spec.executable} ended")
    elif spec.role == "gate":
        on_exit = gates.add(spec.executable)
    return kind(
        package=spec.package,
        executable=spec.executable,
        name=spec.name or None,
        namespace=namespace,
        parameters=[_typed(each) for each in spec.parameters],
        arguments=list(spec.arguments),
        remappings=list(spec.remappings),
        output="screen",
        emulate_tty=True,
        ros_arguments=log,
        on_exit=on_exit,
    )


def _typed(parameters: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """Texts stay texts: launch would read a robot description as YAML."""
    if isinstance(parameters, str):
        return parameters
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def _end(reason: str) -> Callable[[ProcessExited, LaunchContext], Entities]:
    """Shut down when a process ends, unless that is why it ends: launch fails on a second shutdown."""

    def ended(_: ProcessExited, context: LaunchContext) -> Entities:
        return [] if context.is_shutdown else [Shutdown(reason=reason)]

    return ended


class _Gates:
    """What must happen before the planner is activated: its configuration, the processes of role gate."""

    def __init__(self) -> None:
        self.closed: set[str] = {"configured"}
        self.activate: EmitEvent | None = None

    def add(self, name: str) -> Callable[[ProcessExited, LaunchContext], Entities]:
        """What a process of role gate does when it ends; two of one name are two gates."""
        gate = f"{name} {len(self.closed)}"
        self.closed.add(gate)

        def ended(event: ProcessExited, context: LaunchContext) -> Entities:
            if context.is_shutdown:
                return []
            if event.returncode:
                return [LogInfo(msg=f"{name} failed, for the reason above; the planner stays inactive")]
            return self.open(gate)

        return ended

    def open(self, name: str) -> Entities:
        """Note that something has happened; the activation when it was the last."""
        self.closed.discard(name)
        return [self.activate] if not self.closed and self.activate is not None else []


def _bring_to_active(node: LifecycleNode, gates: _Gates) -> Entities:
    """Configure the node now, and activate it once it is configured and the gates are open."""
    gates.activate = _change_state(node, Transition.TRANSITION_ACTIVATE)
    refused = "the planner refused its configuration, for the reason above; it stays idle"
    return [
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[OpaqueFunction(function=lambda _: gates.open("configured"))],
            )
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="unconfigured",
                entities=[LogInfo(msg=refused)],
            )
        ),
        _change_state(node, Transition.TRANSITION_CONFIGURE),
    ]


def _change_state(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))
