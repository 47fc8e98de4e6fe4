"""The launch description of every robot: simulation, planner and, on request, recorder."""

from importlib.resources import files
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

BOOLEAN = ["true", "false"]
LOG_LEVELS = ["debug", "info", "warn", "error", "fatal"]


def robot_launch_description(robot: str) -> LaunchDescription:
    """Launch arguments, all with defaults, and the nodes for a robot that tdmpc2_core ships."""
    config = Path(get_package_share_directory("tdmpc2_bringup")) / "config" / f"{robot}.yaml"
    bundle = Path(str(files("tdmpc2_core"))) / "bundles" / robot
    return LaunchDescription(
        [
            _argument("use_sim_time", "false", "take time from the simulation's /clock", BOOLEAN),
            _argument("namespace", "", "namespace of all nodes and topics"),
            _argument("headless", "true", "false opens the simulator's window", BOOLEAN),
            _argument("model", str(bundle), "checkpoint bundle"),
            _argument("params_file", str(config), "parameters of the nodes"),
            _argument("autostart", "true", "configure and activate the planner", BOOLEAN),
            _argument("log_level", "info", "severity from which nodes log", LOG_LEVELS),
            _argument("record", "", "folder for a rosbag2, which must not exist; empty records nothing"),
            OpaqueFunction(function=_nodes, args=[robot]),
        ]
    )


def _argument(
    name: str, default: str, description: str, choices: list[str] | None = None
) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)


def _nodes(context: LaunchContext, robot: str) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    given = context.launch_configurations
    sim_time, autostart = given["use_sim_time"] == "true", given["autostart"] == "true"
    common = {
        "namespace": given["namespace"],
        "output": "screen",
        "emulate_tty": True,
        "ros_arguments": ["--log-level", given["log_level"]],
    }
    simulation = Node(
        package="tdmpc2_ros",
        executable="mujoco_sim",
        name="mujoco_sim",
        parameters=[
            given["params_file"],
            {"robot": robot, "publish_clock": sim_time, "view": given["headless"] == "false"},
        ],
        on_exit=_end_with_simulation,
        **common,
    )
    planner = LifecycleNode(
        package="tdmpc2_ros",
        executable="planner",
        name="planner",
        parameters=[
            given["params_file"],
            {"robot": robot, "model": given["model"], "autostart": False, "use_sim_time": sim_time},
        ],
        **common,
    )
    actions: list[LaunchDescriptionEntity] = [simulation, planner]
    if given["record"]:
        recorder = Node(
            package="tdmpc2_ros",
            executable="recorder",
            name="recorder",
            parameters=[given["params_file"], {"output": given["record"], "use_sim_time": sim_time}],
            **common,
        )
        actions.append(recorder)
    return actions + (_bring_to_active(planner) if autostart else [])


def _end_with_simulation(_: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Shut down when the simulation ends, unless that is why it ends: launch fails on a second shutdown."""
    return [] if context.is_shutdown else [Shutdown(reason="the simulation ended")]


def _bring_to_active(node: LifecycleNode) -> list[LaunchDescriptionEntity]:
    """Configure the node now, and activate it once it is configured."""
    return [
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[_change_state(node, Transition.TRANSITION_ACTIVATE)],
            )
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="unconfigured",
                entities=[
                    LogInfo(msg="the planner refused its configuration, for the reason above; it stays idle")
                ],
            )
        ),
        _change_state(node, Transition.TRANSITION_CONFIGURE),
    ]


def _change_state(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))
