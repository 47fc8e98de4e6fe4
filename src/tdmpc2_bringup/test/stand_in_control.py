"""Stand-ins for programs of ros2_control, for machines without it: `python stand_in_control.py PROGRAM ...`.

robot_state_publisher hands the description on. ros2_control_node is mock hardware made from the description's
<ros2_control> block: states start at its initial values and follow commands. spawner has it activate
controllers. What they need comes from URDF, parameters and arguments, as on a robot.
"""

import signal
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import rclpy
import yaml
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STOP = threading.Event()


def robot_state_publisher() -> int:
    node = Node("robot_state_publisher")
    text = node.declare_parameter("robot_description", "").value
    node.create_publisher(String, "robot_description", LATCHED).publish(String(data=text))
    return serve(node)


def ros2_control_node() -> int:
    node = Node("controller_manager", automatically_declare_parameters_from_overrides=True)
    position: dict[str, float] = {}
    imu = Imu()

    def on_description(message: String) -> None:
        control = ElementTree.fromstring(message.data).find("ros2_control")
        for joint in control.findall("joint"):
            state = joint.find("state_interface[@name='position']/param[@name='initial_value']")
            position[joint.get("name")] = float(state.text)
        for state in control.iterfind("sensor/state_interface"):
            group, part = state.get("name").split(".")
            setattr(getattr(imu, group), part, float(state.findtext("param", "nan")))

    def on_trajectory(message: JointTrajectory) -> None:
        position.update(zip(message.joint_names, message.points[-1].positions, strict=True))

    def activate(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = bool(position) and node.get_parameter("enforce_command_limits").value
        if response.success and not publishers:
            publishers.append(node.create_publisher(JointState, "joint_states", 1))
            publishers.append(node.create_publisher(Imu, "imu_sensor_broadcaster/imu", 1))
            topic = "joint_trajectory_controller/joint_trajectory"
            node.create_subscription(JointTrajectory, topic, on_trajectory, 1)
        return response

    def update() -> None:
        if publishers:
            stamp = node.get_clock().now().to_msg()
            names = sorted(position)
            states = JointState(
                name=names, position=[position[n] for n in names], velocity=[0.0] * len(names)
            )
            states.header.stamp = imu.header.stamp = stamp
            publishers[0].publish(states)
            publishers[1].publish(imu)

    publishers: list = []
    node.create_subscription(String, "robot_description", on_description, LATCHED)
    node.create_service(Trigger, "~/stand_in_activate", activate)
    node.create_timer(0.01, update)
    return serve(node)


def spawner() -> int:
    arguments = remove_ros_args(sys.argv)[2:]
    split = arguments.index("--param-file")
    content = yaml.safe_load(Path(arguments[split + 1]).read_text())
    known = content["/**/controller_manager"]["ros__parameters"]
    if set(arguments[:split]) - set(known):
        return 1
    node = Node("spawner")
    client = node.create_client(Trigger, "controller_manager/stand_in_activate")
    while not STOP.is_set():
        if client.wait_for_service(0.5):
            future = client.call_async(Trigger.Request())
            rclpy.spin_until_future_complete(node, future, timeout_sec=5.0)
            if future.done() and future.result().success:
                return 0
    return 1


def serve(node: Node) -> int:
    while not STOP.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)
    return 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: STOP.set())
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    sys.exit({f.__name__: f for f in (robot_state_publisher, ros2_control_node, spawner)}[sys.argv[1]]())
