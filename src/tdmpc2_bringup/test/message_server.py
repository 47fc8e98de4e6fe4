"""A process that offers every interface of tdmpc2_msgs; the other end of test_messages.py.

Use: message_server.py DOMAIN_ID. Prints "ready" once everything is offered and serves until it is terminated.
"""

import signal
import sys
import threading

import rclpy
from rclpy.action import ActionServer
from rclpy.signals import SignalHandlerOptions
from tdmpc2_msgs.action import FineTune
from tdmpc2_msgs.msg import LatentState, PlanChunk, PlannerStatus, TrustState
from tdmpc2_msgs.srv import LoadModel, SetTask


def load_model(request: LoadModel.Request, response: LoadModel.Response) -> LoadModel.Response:
    """Accepts any path, says which it was."""
    response.success = True
    response.message = f"loaded {request.path}"
    response.seconds = 0.25
    return response


def set_task(request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
    """Knows two tasks."""
    response.accepted = ["stand", "walk"]
    response.previous = "stand"
    response.success = request.task in response.accepted
    return response


def fine_tune(goal) -> FineTune.Result:
    """One feedback message, then the result."""
    goal.publish_feedback(FineTune.Feedback(stage="training", updates=1, updates_total=goal.request.updates))
    goal.succeed()
    return FineTune.Result(success=True, updates=goal.request.updates, model=goal.request.output)


def main(domain_id: int) -> None:
    """Offer the interfaces; what arrives on in/<topic> goes out on out/<topic>."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    rclpy.init(domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("message_server")
    for kind in (LatentState, PlanChunk, PlannerStatus, TrustState):
        publisher = node.create_publisher(kind, f"out/{kind.__name__}", 1)
        node.create_subscription(kind, f"in/{kind.__name__}", publisher.publish, 1)
    node.create_service(LoadModel, "load_model", load_model)
    node.create_service(SetTask, "set_task", set_task)
    ActionServer(node, FineTune, "fine_tune", fine_tune)
    print("ready", flush=True)
    while not stop.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
