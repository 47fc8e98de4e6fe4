"""What `tdmpc2 fault` does: asks the nodes that take faults, in turn, or sends a process a signal."""

from __future__ import annotations

import os
import time

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.faults import Request, target_of
from tdmpc2_ros.fault import processes

_DISCOVERY, _MORE = 3.0, 1.0  # s to wait for the first service, and for others after it
_ANSWER = 5.0  # s to wait for each answer
_TYPE = "rcl_interfaces/srv/SetParametersAtomically"


def send(request: Request, node: str = "", namespace: str = "") -> str:
    """Inject the fault; says where.

    Args:
        node: full name of the node to ask; empty asks those below `namespace`, a relay first. `ok` goes to
            all of them.

    Raises:
        UserError: nobody takes it; with the reasons.
    """
    if target_of(request.component) == "process":
        pid = processes.inject(request, os.environ, namespace)
        return f"{request.component}, process {pid}: {request.fault}"
    rclpy.init(args=[])
    try:
        asker = rclpy.create_node(f"fault_command_{os.getpid()}", enable_rosout=False)
        return _ask(asker, request, node, namespace)
    finally:
        rclpy.try_shutdown()


def _ask(asker: Node, request: Request, node: str, namespace: str) -> str:
    wanted = f"/{node.strip('/')}/fault" if node else ""
    found, end = list[str](), time.monotonic() + _DISCOVERY
    while time.monotonic() < end:
        rclpy.spin_once(asker, timeout_sec=0.1)
        before, found = found, _services(asker, wanted, namespace)
        if found and not before:
            end = time.monotonic() + (0.0 if node else _MORE)
    if not found:
        where = wanted or f"/{namespace.strip('/')}/*/fault".replace("//", "/")
        raise UserError(
            f"{request.component}: no service {where} here (ROS_DOMAIN_ID "
            f"{os.environ.get('ROS_DOMAIN_ID') or 0}); start the simulation, or the relay: "
            "ros2 run tdmpc2_ros fault"
        )
    taken, reasons = [], []
    for service in found:
        problem = call(asker, service, request)
        if problem:
            reasons.append(f"{service}: {problem}")
        else:
            taken.append(service)
        if taken and request.fault != "ok":
            break
    if not taken:
        raise UserError("; ".join(reasons))
    return f"{', '.join(taken)}: {request.component} {request.fault}"


def _services(asker: Node, wanted: str, namespace: str) -> list[str]:
    """Services that take faults; a relay's first, as others may be remapped to it."""
    below = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
    names = [
        name
        for name, types in asker.get_service_names_and_types()
        if _TYPE in types and name.endswith("/fault") and (name == wanted or not wanted)
    ]
    mine = [name for name in names if wanted or name[: name[:-6].rindex("/") + 1] == below]
    return sorted(mine, key=lambda name: not name.endswith("/fault/fault"))


def call(asker: Node, service: str, request: Request) -> str:
    """Ask one service; why it refuses, empty where it does not. `asker` is not spun by another thread."""
    client = asker.create_client(SetParametersAtomically, service)
    future = None
    if client.wait_for_service(_ANSWER):
        future = client.call_async(message_of(request))
        rclpy.spin_until_future_complete(asker, future, timeout_sec=_ANSWER)
    if future is None or not future.done():
        return f"no answer within {_ANSWER:g} s"
    result = future.result().result
    return "" if result.successful else result.reason or "refused"


def message_of(request: Request) -> SetParametersAtomically.Request:
    """The request as the service takes it."""
    name = f"{request.component}/{request.joint}" if request.joint else request.component
    text = request.fault if request.size is None else f"{request.fault} {request.size!r}"
    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text)
    return SetParametersAtomically.Request(parameters=[Parameter(name=name, value=value)])
