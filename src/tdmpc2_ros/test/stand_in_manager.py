"""A process in place of a controller manager: tells states of controllers as it is told.

Needs controller_manager_msgs. What comes on `stand_in/controllers`, such as "a=active b=inactive", goes out
on controller_manager/activity, latched, and is the answer of controller_manager/list_controllers.
"""

import contextlib

import rclpy
from controller_manager_msgs.msg import ControllerManagerActivity, ControllerState, NamedLifecycleState
from controller_manager_msgs.srv import ListControllers
from lifecycle_msgs.msg import State
from rclpy.executors import ExternalShutdownException
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String


def main() -> None:
    """Serve until terminated."""
    rclpy.init()
    node = rclpy.create_node("controller_manager")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    activity = node.create_publisher(ControllerManagerActivity, "~/activity", latched)
    states: dict[str, str] = {}

    def told(message: String) -> None:
        states.clear()
        states.update(pair.split("=") for pair in message.data.split())
        named = [NamedLifecycleState(name=n, state=State(label=label)) for n, label in states.items()]
        activity.publish(ControllerManagerActivity(controllers=named))

    def listed(_: ListControllers.Request, response: ListControllers.Response) -> ListControllers.Response:
        response.controller = [ControllerState(name=n, state=label) for n, label in states.items()]
        return response

    node.create_subscription(String, "stand_in/controllers", told, latched)
    node.create_service(ListControllers, "~/list_controllers", listed)
    print("ready", flush=True)
    with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
