"""`quickstart --robots N`: several robots, each with simulation, planner and operator in its namespace.

All share one DDS domain: robot1/cmd_vel commands robot1 and no other. Odd robots turn left, even ones
right; each is judged by its own course.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.course import Course
from tdmpc2_core.scoring.run_metrics import Score, score
from tdmpc2_ros.naming import robot_name
from tdmpc2_ros.quickstart.options import Options
from tdmpc2_ros.quickstart.processes import Child, ChildDied, Children, own_domain
from tdmpc2_ros.quickstart.report import LiveLine, machine, verdict, write_json

if TYPE_CHECKING:
    from tdmpc2_ros.quickstart.operator import Operator


_START_SECONDS, _CONFIGURE_SECONDS = 60.0, 180.0
_COMMAND_PERIOD = 0.05  # s: cmd_vel at 20 Hz


class Mirrored(Course):
    """A course whose turns go the other way."""

    def __init__(self, embodiment: Embodiment, seconds: float) -> None:
        super().__init__(embodiment, seconds)
        mirrored = ((part, (x, y, -yaw)) for part in self.segments for x, y, yaw in [part.command])
        self.segments = [replace(part, command=command) for part, command in mirrored]


class Member:
    """One robot of several: its namespace, processes, operator and course."""

    def __init__(self, number: int, options: Options, children: Children) -> None:
        from tdmpc2_ros.quickstart.operator import Operator

        self.name, self._options, self._children = robot_name(number), options, children
        robot, seconds = options.embodiment, options.course.seconds
        self.course = Course(robot, seconds) if number % 2 else Mirrored(robot, seconds)
        self.operator: Operator = Operator(robot, children.check, self.name)
        self._seed = options.seed + number - 1
        self._start = 0.0
        self._planner: Child | None = None

    def start(self) -> None:
        """Start simulation and planner. Raises ChildDied."""
        options, folder = self._options, str(self._options.embodiment.directory)
        simulation = {"robot": folder, "seed": self._seed, "reset_noise": True}
        simulation |= {"randomise": options.randomise}
        self._children.start("mujoco_sim", "tdmpc2_ros.simulator.node", simulation, self.name)
        planner: dict[str, Any] = {"model": str(options.model), "robot": folder, "seed": self._seed}
        planner |= {"method": options.planner, "report": str(options.out / f"{self.name}.json")}
        if options.deadline_ms is not None:
            planner["deadline_ms"] = options.deadline_ms
        self._planner = self._children.start("planner", "tdmpc2_ros.planner.node", planner, self.name)

    def activate(self) -> None:
        """Bring the planner to active. Raises UserError, ChildDied."""
        from lifecycle_msgs.msg import Transition

        operator, planner = self.operator, self._planner
        assert planner is not None
        if not operator.wait(operator.ready, _START_SECONDS):
            raise ChildDied(f"{self.name}: the simulation sends nothing; see its log in {self._options.out}")
        for number, limit in (
            (Transition.TRANSITION_CONFIGURE, _CONFIGURE_SECONDS),
            (Transition.TRANSITION_ACTIVATE, _START_SECONDS),
        ):
            answer = operator.transition(number, limit)
            if answer is None:
                raise ChildDied(f"{self.name}: the planner does not answer:\n{planner.tail()}")
            if not answer:
                raise UserError(planner.complaint() or f"{self.name}: the planner refused; see {planner.log}")
        if not operator.wait(lambda: operator.commands > 0, _START_SECONDS):
            raise ChildDied(f"{self.name}: the planner sends no commands:\n{planner.tail()}")

    def begin(self) -> None:
        """The course starts now."""
        self._start, self.operator.recording = self.operator.now(), True

    def command(self, elapsed: float, seconds: float) -> str:
        """Send the command of this time, serve callbacks for `seconds`; a few words for the live line."""
        segment = self.course.at(elapsed)
        self.operator.command(segment.command)
        self.operator.spin(seconds)
        return f"{self.name} {segment.name} {self.operator.walked:.1f} m"

    def score(self) -> Score:
        """How it did."""
        self.operator.recording = False
        return score(self.operator.motion(self._start), self.course, self._options.embodiment)


def _execute(members: list[Member], seconds: float) -> dict[str, Score]:
    for member in members:
        member.start()
    for member in members:
        member.activate()
    live, begin, tick = LiveLine(), time.monotonic(), 0
    for member in members:
        member.begin()
    while (elapsed := time.monotonic() - begin) < seconds:
        tick += 1
        left = max(0.0, begin + tick * _COMMAND_PERIOD - time.monotonic())
        share = left / len(members)
        live.show(f"{elapsed:5.1f} s  " + "   ".join(member.command(elapsed, share) for member in members))
    live.end()
    for member in members:
        member.operator.spin(0.1)
    return {member.name: member.score() for member in members}


def _table(scores: dict[str, Score]) -> str:
    rows = [("", "distance", "of", "velocity error", "falls", "result")]
    for name, one in scores.items():
        distances = f"{one.distance:.2f} m", f"{one.commanded_distance:.2f} m"
        rows.append((name, *distances, f"{one.velocity_error:.3f} m/s", str(one.falls), verdict(one)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  " + "   ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def run(options: Options) -> int:
    """Run them; 0 when every robot stayed up and followed its own command, else 1.

    Raises:
        UserError, ChildDied: as the quickstart of one robot.
    """
    os.environ.update(
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE"
    )
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    (options.out / "results.json").unlink(missing_ok=True)
    with own_domain() as domain, Children(options.out) as children:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        names = f"{options.robots} x {options.embodiment.name}"
        print(f"{names}, {options.model}; ROS_DOMAIN_ID={domain}, logs in {options.out}", flush=True)
        rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        try:
            members = [Member(number + 1, options, children) for number in range(options.robots)]
            scores = _execute(members, options.course.seconds)
        finally:
            rclpy.try_shutdown()
    print(_table(scores))
    content = {
        "robot": options.embodiment.name,
        "seconds": options.course.seconds,
        "seed": options.seed,
        "robots": {name: one.to_dict() | {"verdict": verdict(one)} for name, one in scores.items()},
        "machine": machine(),
    }
    write_json(options.out / "results.json", content)
    print(f"results: {options.out / 'results.json'}", flush=True)
    return 0 if all(one.followed for one in scores.values()) else 1
