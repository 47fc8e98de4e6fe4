"""ROS parameters from a settings dataclass: one declaration gives default, description, range and checks."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from tdmpc2_core.config import closest, from_mapping, to_mapping, type_hints
from tdmpc2_core.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_INT_MAX = 2**63 - 1


class Parameters(Generic[T]):
    """A node's parameters as an instance of `cls`, whose fields are made with `tdmpc2_core.config.setting`.

    Parameters are read-only except those in `dynamic`. A change that does not fit is refused with the reason.

    Raises:
        UserError: a value given at start has the wrong type or is out of range; the parameter is named.
    """

    def __init__(self, node: Node, cls: type[T], dynamic: Collection[str] = ()) -> None:
        self._cls, self._where = cls, f"parameters of {node.get_name()}"
        self._listeners: list[Callable[[T], None]] = []
        self._checks: list[Callable[[T], None]] = []
        values = {}
        for field in dataclasses.fields(cls):
            try:
                descriptor = describe(field, type_hints(cls)[field.name], read_only=field.name not in dynamic)
                default = _default(field)
                values[field.name] = node.declare_parameter(field.name, default, descriptor).value
            except ParameterException as problem:
                raise UserError(f"{self._where}: {field.name}: {_sentence(problem)}") from None
        self.values: T = from_mapping(cls, values, self._where)
        self._name_strangers(node)
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(self._take)

    def _name_strangers(self, node: Node) -> None:
        """Warn of parameters given at start that the node does not have; ROS passes over them."""
        known = [field.name for field in dataclasses.fields(self._cls)]
        for name in node._parameter_overrides:  # rclpy has no other way to see them
            if not node.has_parameter(name) and not name.startswith("qos_overrides."):
                near = closest(name, known)
                node.get_logger().warning(f"{self._where}: {name} has no effect: no such parameter{near}")

    def on_change(self, listener: Callable[[T], None]) -> None:
        """Call `listener` with all values after each accepted change of a dynamic parameter."""
        self._listeners.append(listener)

    def check_changes(self, check: Callable[[T], None]) -> None:
        """Call `check` with all values before a change is accepted; a UserError of it refuses the change."""
        self._checks.append(check)

    def _judge(self, parameters: list[Parameter]) -> SetParametersResult:
        """Whether a change fits. It changes nothing: another callback may still refuse it."""
        try:
            values = self._with(parameters)
            for check in self._checks if values is not self.values else ():
                check(values)
        except UserError as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        return SetParametersResult(successful=True)

    def _take(self, parameters: list[Parameter]) -> None:
        """Follow a change that the node has made."""
        values = self._with(parameters)
        if values is self.values:
            return
        self.values = values
        for listener in self._listeners:
            listener(values)

    def _with(self, parameters: list[Parameter]) -> T:
        """The values after a change; the present ones where it concerns none of them. Raises UserError."""
        names = {field.name for field in dataclasses.fields(self._cls)}
        changes = {p.name: p.value for p in parameters if p.name in names}
        if not changes:
            return self.values
        return from_mapping(self._cls, {**to_mapping(self.values), **changes}, self._where)


def describe(field: dataclasses.Field[Any], hint: Any, read_only: bool) -> ParameterDescriptor:
    """Descriptor of one settings field: description with unit, accepted values, range, read_only."""
    rules = field.metadata
    unit = f" [{rules['unit']}]" if rules.get("unit") else ""
    descriptor = ParameterDescriptor(
        name=field.name, description=f"{rules.get('why', '')}{unit}", read_only=read_only
    )
    if typing.get_origin(hint) is Literal:
        descriptor.additional_constraints = "one of " + ", ".join(map(str, typing.get_args(hint)))
    else:
        exclusive = [f"{key} {rules[key]:g}" for key in ("above", "below") if rules.get(key) is not None]
        descriptor.additional_constraints = " and ".join(exclusive)
    # a whole number such as 12 is a good value for a float too; `Parameters` checks the type instead
    descriptor.dynamic_typing = hint is float
    bounds = _bound(rules, "low", "above"), _bound(rules, "high", "below")
    if bounds != (None, None):
        _set_range(descriptor, hint, *bounds)
    return descriptor


def _set_range(descriptor: ParameterDescriptor, hint: Any, low: float | None, high: float | None) -> None:
    kind, most = (int, _INT_MAX) if hint is int else (float, sys.float_info.max)
    first, last = kind(-most if low is None else low), kind(most if high is None else high)
    if hint is int:
        descriptor.integer_range = [IntegerRange(from_value=first, to_value=last, step=0)]
    elif hint is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=first, to_value=last, step=0.0)]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"parameter {field.name} has no default; every parameter of a node needs one")


def _bound(rules: typing.Mapping[str, Any], inclusive: str, exclusive: str) -> float | None:
    return rules.get(exclusive) if rules.get(inclusive) is None else rules[inclusive]


def _sentence(problem: ParameterException) -> str:
    text = str(problem.args[0] if problem.args else problem)
    return " ".join(text.rpartition("Reason: ")[2].split()).rstrip(".")
