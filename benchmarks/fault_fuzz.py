"""Every service and parameter of the nodes, called with what nobody means: the fault suite's fuzzing."""

from __future__ import annotations

import importlib
import random
import re
import time
from typing import Any

from fault_world import World
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import ListParameters, SetParameters

from tdmpc2_core.errors import UserError

NODES = ("planner", "supervisor", "mujoco_sim")
_KEPT = ("get_state", "get_available", "get_transition_graph", "change_state")
"""Services of the lifecycle: a valid transition would end the planner's work by right."""
_ROUNDS = 3
_EXTREME = (0.0, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"), -1.0)
_TEXTS = (
    "",
    "/",
    "..",
    "\u0001\u0002",
    "é漢字",
    "x" * 5000,
    "%s%n",
    "-1",
    "nan",
    "../../etc/passwd",
    "'; --",
)


def fuzz(world: World) -> None:
    """Call them. Raises UserError where a node ends or a thread of it falls silent."""
    rng, calls = random.Random(0), 0
    for name in NODES:
        for service, kind in services_of(world, name):
            for _ in range(_ROUNDS):
                request = filled(kind.Request, rng)
                calls += world.call(service, kind, request) is not None
        calls += _parameters(world, name, rng)
        print(f"  {name}: {calls} calls answered", flush=True)
    time.sleep(1.5)
    for name in ("planner", "supervisor", "simulator"):
        if not world.alive(name):
            raise UserError(f"{name} ended:\n{world.nodes[name].tail()}")
    now = time.time()
    if not world.decisions or now - world.decisions[-1][0] > 1.0:
        raise UserError("the planner's control thread is silent")
    for text in {text for *_, text in world.said if text.startswith("a callback failed")}:
        print(f"  {text}", flush=True)


def services_of(world: World, name: str) -> list[tuple[str, type]]:
    """Names and types of a node's services."""
    found = []
    for service, types in world.node.get_service_names_and_types_by_node(name, "/"):
        package, _, kind = types[0].split("/")
        if not service.rpartition("/")[2].startswith(_KEPT):
            found.append((service, getattr(importlib.import_module(f"{package}.srv"), kind)))
    return sorted(found, key=lambda pair: pair[0])


def _parameters(world: World, name: str, rng: random.Random) -> int:
    """Every parameter set to values of every type; how many were answered."""
    listed = world.call(f"/{name}/list_parameters", ListParameters)
    answered = 0
    for parameter in listed.result.names if listed else ():
        one = Parameter(name=parameter, value=filled(ParameterValue, rng))
        request = SetParameters.Request(parameters=[one])
        answered += world.call(f"/{name}/set_parameters", SetParameters, request) is not None
    return answered


def filled(kind: type, rng: random.Random) -> Any:
    """A message of random content."""
    message = kind()
    if kind is ParameterValue:  # types that rclpy does not know get no answer from it
        value = _filled_fields(message, rng)
        value.type = rng.randrange(10)
        return value
    return _filled_fields(message, rng)


def _filled_fields(message: Any, rng: random.Random) -> Any:
    for name, field in message.get_fields_and_field_types().items():
        setattr(message, name, _value(field, rng))
    return message


def _value(field: str, rng: random.Random) -> Any:
    if sequence := re.fullmatch(r"sequence<(.*?)(?:, (\d+))?>", field):
        return [_value(sequence.group(1), rng) for _ in range(rng.randrange(3))]
    if array := re.fullmatch(r"(.*)\[(\d+)\]", field):
        return [_value(array.group(1), rng) for _ in range(int(array.group(2)))]
    if field in ("double", "float"):
        return rng.choice(_EXTREME) if field == "double" else rng.choice((0.0, 1e38, -1e38))
    if whole := re.fullmatch(r"(u?)int(\d+)", field):
        bits = int(whole.group(2))
        low, high = (0, 2**bits - 1) if whole.group(1) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return rng.choice((low, high, 0, rng.randint(low, high)))
    if field == "boolean":
        return rng.random() < 0.5
    if field in ("octet", "byte"):
        return bytes([rng.randrange(256)])
    if field.startswith(("string", "wstring")):
        bound = re.fullmatch(r"w?string<(\d+)>", field)
        return rng.choice(_TEXTS)[: int(bound.group(1)) if bound else None]
    package, name = field.split("/")
    return filled(getattr(importlib.import_module(f"{package}.msg"), name), rng)
