"""The faults of one node: what its service `~/fault` sets, and its messages on their way through them.

The service is of a standard type, rcl_interfaces/SetParametersAtomically, so that it works without
tdmpc2_msgs: a parameter per component, such as `imu` or `joints/FL_hip_joint`, whose text is a fault and,
where it has one, its size: `stuck`, `delayed 0.2`. All of a request are set, or none, with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.impl.rcutils_logger import RcutilsLogger

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.faults import CLOCK, DRIVES, Request, read_request
from tdmpc2_core.robots.faulty import ClockLine, Drives, Line
from tdmpc2_core.robots.messages import Reading, to_seconds
from tdmpc2_ros.messages import doubles, to_time

Array = NDArray[np.float64]


class FaultPanel:
    """Lines of a robot's `sources`, and of the clock where `clock` is set; its drives, in simulation."""

    def __init__(
        self,
        robot: Embodiment,
        sources: Sequence[str],
        logger: RcutilsLogger,
        clock: bool = False,
        drives: Drives | None = None,
        seed: int = 0,
    ) -> None:
        self._logger = logger
        joints = sorted(robot.joint_names)
        self._lines = {
            source: Line(source, joints if source == "joints" else (), seed + number)
            for number, source in enumerate(sources)
        }
        if clock:
            self._lines[CLOCK] = ClockLine(CLOCK, seed=seed)
        self._parts: Mapping[str, Line | Drives] = self._lines
        if drives is not None:
            self._parts = {**self._lines, DRIVES: drives}

    def serve(
        self, request: SetParametersAtomically.Request, response: SetParametersAtomically.Response
    ) -> SetParametersAtomically.Response:
        """Set the faults of a request."""
        try:
            wanted = [self._read(one.name, one.value.string_value) for one in request.parameters]
        except UserError as problem:
            response.result.successful, response.result.reason = False, str(problem)
            return response
        for one in wanted:
            self._parts[one.component].set(one)
            where = f"{one.component}/{one.joint}" if one.joint else one.component
            size = "" if one.size is None else f" {one.size:g}"
            self._logger.warning(f"fault: {where} {one.fault}{size}")
        response.result.successful = True
        return response

    def _read(self, component: str, text: str) -> Request:
        words = text.split()
        if not 1 <= len(words) <= 2:
            raise UserError(f"{component}: give a fault and perhaps its size as text, such as 'delayed 0.2'")
        try:
            size = float(words[1]) if len(words) == 2 else None
        except ValueError:
            raise UserError(f"{component}: size is {words[1]!r}, a number is needed") from None
        request = read_request(component, words[0], size)
        part = self._parts.get(request.component)
        if part is None:
            raise UserError(f"{request.component} does not pass here; {', '.join(self._parts)} do")
        part.check(request)
        return request

    def passed(self, component: str, now: float, message: Any) -> Sequence[Any]:
        """What goes out at `now`, s of a clock that never stands, in place of a message."""
        line = self._lines[component]
        if not line.active:
            return (message,)
        return [written(message, reading) for reading in line.take(now, read(message))]

    def late(self, component: str, now: float, message: Any) -> Sequence[Any]:
        """What was to go out by `now`, written into copies of `message`."""
        line = self._lines[component]
        return [written(message, reading) for reading in line.due(now)] if line.active else ()


# ---- any message as a reading ----


def read(message: Any) -> Reading:
    """All numbers of a message as arrays by the path of their attribute, its stamp, s, and its names."""
    if hasattr(message, "clock"):
        return Reading(to_seconds(message.clock), {})
    stamp = to_seconds(message.header.stamp) if hasattr(message, "header") else None
    names = list(message.name) if hasattr(message, "name") else None
    return Reading(stamp, dict(_numbers(message)), names)


def written(message: Any, reading: Reading) -> Any:
    """A copy of the message that says what the reading does."""
    result = copy.deepcopy(message)
    if reading.stamp is not None:
        if hasattr(result, "clock"):
            result.clock = to_time(reading.stamp)
        else:
            result.header.stamp = to_time(reading.stamp)
    if reading.names is not None:
        result.name = list(reading.names)
    for path, values in reading.fields.items():
        *parents, last = path.split(".")
        owner = result
        for parent in parents:
            owner = getattr(owner, parent)
        part = getattr(owner, last)
        if hasattr(part, "get_fields_and_field_types"):
            for slot, value in zip(part.get_fields_and_field_types(), np.asarray(values), strict=True):
                setattr(part, slot, float(value))
        else:
            setattr(owner, last, doubles(values))
    return result


def _numbers(message: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    """Path and values of every vector of doubles; covariances and headers are none."""
    for name, kind in message.get_fields_and_field_types().items():
        part, where = getattr(message, name), f"{path}.{name}" if path else name
        if kind == "sequence<double>":
            yield where, np.array(part, np.float64)
        elif hasattr(part, "get_fields_and_field_types") and name != "header":
            slots = part.get_fields_and_field_types()
            if set(slots.values()) == {"double"}:
                yield where, np.array([getattr(part, slot) for slot in slots], np.float64)
            else:
                yield from _numbers(part, where)
