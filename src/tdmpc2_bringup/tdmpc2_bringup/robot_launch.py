"""The launch descriptions, of one robot and of several: what `layout` says, as launch actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

from tdmpc2_bringup.layout import CONFIGURED, Gates, Include, Layout, NodeSpec, layout, own_clock
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import SEVERAL, Argument, Settings, arguments, each_robot, settings_from

Entities = list[LaunchDescriptionEntity]
OnExit = Callable[[ProcessExited, LaunchContext], Entities]


def robot_launch_description(robot: str = "") -> LaunchDescription:
    """Launch arguments, all with defaults, and the nodes for a robot that tdmpc2_core ships.

    Without a name there is one argument more, `robot`, which has no default.
    """
    own = [] if robot else [DeclareLaunchArgument("robot", description="folder with embodiment.yaml")]

    def start(context: LaunchContext) -> Entities:
        given = context.launch_configurations
        settings = settings_from(given)
        return _start([(settings, _plan(robot or given["robot"], settings))])

    return LaunchDescription([*own, *_declared(arguments()), OpaqueFunction(function=start)])


def multi_robot_launch_description() -> LaunchDescription:
    """The same for several robots of a kind, which two arguments more name and count."""

    def start(context: LaunchContext) -> Entities:
        given = context.launch_configurations
        members = each_robot(settings_from(given), given["robots"])
        return _start([(one, own_clock(_plan(given["robot"], one), one)) for one in members])

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
    return layout(RobotFiles(robot, settings, share), _installed)


def _start(robots: list[tuple[Settings, Layout]]) -> Entities:
    """Everything of all robots, once all of them are known to be right."""
    notes = dict.fromkeys(note for _, plan in robots for note in plan.notes)
    actions: Entities = [LogInfo(msg=note) for note in notes]
    essentials = _Essentials()
    for settings, plan in robots:
        gates = _PlannerGates(settings.namespace)
        actions += [_include(each) for each in plan.includes]
        planner: LifecycleNode | None = None
        for spec in plan.nodes:
            node = _node(spec, settings, essentials, gates)
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


def _node(spec: NodeSpec, settings: Settings, essentials: _Essentials, gates: _PlannerGates) -> Node:
    kind = LifecycleNode if spec.role == "planner" else Node
    log = ["--log-level", settings.log_level] if spec.ours else []
    on_exit = None
    if spec.role == "essential":
        on_exit = essentials.add(_named(settings.namespace, spec.executable))
    elif spec.role == "gate":
        on_exit = gates.add(spec.executable)
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
    )


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
        """What a process does when it ends. Launch fails on a second shutdown, so there is one at most."""

        def ended(_: ProcessExited, context: LaunchContext) -> Entities:
            if self.ended or context.is_shutdown:
                return []
            self.ended = True
            return [Shutdown(reason=f"{name} ended")]

        return ended


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


def _bring_to_active(node: LifecycleNode, gates: _PlannerGates) -> Entities:
    """Configure the node now, and activate it once it is configured and the gates are open."""
    gates.activate = _change_state(node, Transition.TRANSITION_ACTIVATE)
    name = _named(gates.namespace, "planner")
    refused = f"{name} refused its configuration, for the reason above; it stays idle"
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
                entities=[LogInfo(msg=refused)],
            )
        ),
        _change_state(node, Transition.TRANSITION_CONFIGURE),
    ]


def _change_state(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))
