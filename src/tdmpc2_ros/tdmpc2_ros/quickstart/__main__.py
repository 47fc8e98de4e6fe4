"""`python -m tdmpc2_ros.quickstart quadruped`: simulation and planner as ROS 2 processes, and a short course.

Starts mujoco_sim, planner and, where asked for, recorder in a DDS domain of their own on this machine;
commands the robot through a course; prints a table, writes results.json and, where rendering works, a film
and a picture. Exit code: 0 the robot stayed up and followed, 1 it did not or a process died, 2 a mistake in
the call.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_json
from tdmpc2_core.scoring.course import Course, Goal, ReachCourse
from tdmpc2_core.scoring.reaching import ReachScore, score_reach
from tdmpc2_core.scoring.walking import WalkScore, score_walk
from tdmpc2_ros.naming import robot_name
from tdmpc2_ros.quickstart import video
from tdmpc2_ros.quickstart.options import Options, parse
from tdmpc2_ros.quickstart.processes import Child, ChildDied, Children, own_domain
from tdmpc2_ros.quickstart.report import LiveLine, comparison, machine, table, verdict

_START_SECONDS, _CONFIGURE_SECONDS = 30.0, 90.0  # each, per robot
_COMMAND_PERIOD = 0.05  # s: cmd_vel at 20 Hz


class RobotRun:
    """One robot of a run: its processes, its operator, its course. Of several, each has a namespace.

    Odd robots of several turn left, even ones right, each by a course of its own.
    """

    def __init__(self, options: Options, children: Children, number: int = 0) -> None:
        from tdmpc2_ros.quickstart.operator import Operator

        self.name = robot_name(number) if number else ""
        self.options, self.children = options, children
        self.course: Course | ReachCourse = options.course
        if number:
            self.course = Course(options.embodiment, options.course.seconds, mirrored=number % 2 == 0)
        self.operator = Operator(options.embodiment, children.check, self.name)
        self.start_time = 0.0  # node clock at the beginning of the course, s
        self.report = options.out / f"{self.name or 'planner'}.json"
        self.memory: float | None = None
        self._seed = options.seed + max(number - 1, 0)
        self._patience = max(options.robots, 1)
        self._planner: Child | None = None

    @property
    def _who(self) -> str:
        return f"{self.name}: " if self.name else ""

    def start(self) -> None:
        """Start simulation, planner and, where asked for, recorder."""
        options, robot = self.options, self.options.embodiment
        simulation = {"robot": str(robot.directory), "seed": self._seed, "reset_noise": True}
        simulation |= {"randomise": options.randomise, "view": options.view}
        self.children.start("mujoco_sim", "tdmpc2_ros.simulator.node", simulation, self.name)
        parameters = {"model": str(options.model), "robot": str(robot.directory), "seed": self._seed}
        parameters |= {"method": options.planner, "report": str(self.report)}
        if options.deadline_ms is not None:
            parameters["deadline_ms"] = options.deadline_ms
        self._planner = self.children.start("planner", "tdmpc2_ros.planner.node", parameters, self.name)
        if options.record:
            self.children.start("recorder", "tdmpc2_ros.recorder.node", {"output": str(options.record)})

    def activate(self) -> None:
        """Bring the planner to active. Raises UserError, ChildDied."""
        from lifecycle_msgs.msg import Transition

        operator, planner, out = self.operator, self._planner, self.options.out
        assert planner is not None
        start, configure = self._patience * _START_SECONDS, self._patience * _CONFIGURE_SECONDS
        if not operator.wait(operator.ready, start):
            raise ChildDied(f"{self._who}mujoco_sim sends nothing after {start:g} s; see its log in {out}")
        for number, name, limit in (
            (Transition.TRANSITION_CONFIGURE, "configure", configure),
            (Transition.TRANSITION_ACTIVATE, "activate", start),
        ):
            answer = operator.transition(number, limit)
            if answer is None:
                silent = f"{self._who}planner does not answer to {name} within {limit:g} s"
                raise ChildDied(f"{silent}:\n{planner.tail()}")
            if not answer:
                why = planner.complaint() or f"{self._who}planner refused to {name}; see {planner.log}"
                raise UserError(why)
        if not operator.wait(lambda: operator.commands > 0, start):
            raise ChildDied(f"{self._who}planner sends no commands:\n{planner.tail()}")

    def begin(self) -> None:
        """The course starts now."""
        self.start_time, self.operator.recording = self.operator.now(), True

    def command(self, elapsed: float, seconds: float) -> str:
        """Send the command of this time, serve callbacks for `seconds`; what the live line says."""
        segment = self.course.at(elapsed)
        self.operator.command(segment.command)
        text = self._short(segment.name) if self.name else self._line(elapsed)
        self.operator.spin(seconds)
        return text

    def end(self) -> WalkScore | ReachScore:
        """Stop the processes; how the robot did."""
        self.operator.spin(0.1)
        self.operator.recording = False
        assert self._planner is not None
        self.memory = self._planner.peak_megabytes()
        self.children.stop(self._planner)
        if isinstance(self.course, ReachCourse):
            return score_reach(*self.operator.tool(self.start_time), self.course)
        return score_walk(self.operator.motion(self.start_time), self.course, self.options.embodiment)

    def planner_report(self) -> dict[str, Any]:
        """What the planner wrote of itself when it stopped."""
        return json.loads(self.report.read_text()) if self.report.is_file() else {}

    def _short(self, segment: str) -> str:
        return f"{self.name} {segment} {self.operator.walked:.1f} m"

    def _line(self, elapsed: float) -> str:
        course, latency = self.course, self.operator.latency
        segment = course.at(elapsed)
        if isinstance(course, ReachCourse):
            text = self._reaching(course, course.at(elapsed))
        else:
            row, command = self.operator.newest, segment.command
            text = (
                f"command {command[0]:.2f} m/s {command[2]:+.2f} rad/s  "
                f"speed {float(np.hypot(row[8], row[9])):.2f} m/s  distance {self.operator.walked:.1f} m  "
                f"falls {self.operator.falls.count}"
            )
        return (
            f"{elapsed:5.1f}/{course.seconds:g} s  {segment.name:5s}  {text}  "
            f"latency p50 {latency.get('latency_ms.p50', '-')} p99 {latency.get('latency_ms.p99', '-')} ms"
        )

    def _reaching(self, course: ReachCourse, goal: Goal) -> str:
        _, tool = self.operator.tool(self.start_time, newest=True)
        distance, angle = course.error(tool[-1], goal) if len(tool) else (np.nan, np.nan)
        x, y, z = goal.command[:3]
        return f"({x:.2f}, {y:+.2f}, {z:.2f}) m  {1000 * distance:4.0f} mm {angle:.2f} rad away"


def _execute(robots: list[RobotRun], children: Children) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start everything, run the course, stop everything: scores by robot, and how busy the processes were.

    Raises UserError, ChildDied.
    """
    _say("starting simulation and planner")
    for robot in robots:
        robot.start()
    for robot in robots:
        robot.activate()
    seconds, live, tick = robots[0].course.seconds, LiveLine(), 0
    before = {child.name: child.cpu_seconds() or 0.0 for child in children.all}
    begin = time.monotonic()
    for robot in robots:
        robot.begin()
    while (elapsed := time.monotonic() - begin) < seconds:
        tick += 1
        share = max(0.0, begin + tick * _COMMAND_PERIOD - time.monotonic()) / len(robots)
        words = [robot.command(elapsed, share) for robot in robots]
        live.show(words[0] if len(robots) == 1 else f"{elapsed:5.1f} s  " + "   ".join(words))
    live.end()
    busy = {
        "cpu_share_of_one_core": {
            child.name: ((child.cpu_seconds() or 0.0) - before[child.name]) / seconds
            for child in children.all
        },
        "realtime_priority": {child.name: child.realtime() for child in children.all},
    }
    scores = {robot.name: robot.end() for robot in robots}
    for child in reversed(list(children.all)):
        children.stop(child)
    return scores, busy


def _finish(robots: list[RobotRun], scores: dict[str, Any], busy: dict[str, Any]) -> None:
    """Print and write what came of it."""
    options, first = robots[0].options, robots[0]
    content = {
        "robot": options.embodiment.name,
        "seconds": options.course.seconds,
        "seed": options.seed,
        "randomise": options.randomise,
        "model": str(options.model),
    }
    told = {
        robot.name: {
            "course": [vars(segment) for segment in robot.course.segments],
            "score": scores[robot.name].to_dict(),
            "verdict": verdict(scores[robot.name]),
            "planner": robot.planner_report(),
            "planner_memory_mb": robot.memory,
        }
        for robot in robots
    }
    if len(robots) == 1:
        print(table(scores[""], told[""]["planner"], first.memory))
        content |= told[""]
    else:
        print(comparison(scores))
        content["robots"] = {name: one["score"] | one for name, one in told.items()}
    write_json(options.out / "results.json", content | busy | {"machine": machine()})
    _say(f"results: {options.out / 'results.json'}")
    if options.record:
        _say(f"bag: {options.record}")
    if options.video and len(robots) == 1:
        _say(video.make(_save_motion(first), options.course.seconds))


def _save_motion(robot: RobotRun) -> Path:
    """What the film is made from."""
    options, course = robot.options, robot.course
    times, joints = robot.operator.joints(robot.start_time)
    motion = robot.operator.motion(robot.start_time)
    nearest = np.clip(np.searchsorted(motion.time, times), 0, len(motion.time) - 1)
    shown = next((part for part in course.segments if part.name == "walk"), course.segments[0])
    goals = np.zeros((0, 7))
    if isinstance(course, ReachCourse):
        goals = np.array([course.at(time).command for time in times])
    recording = video.Recording(
        robot=str(options.embodiment.directory),
        time=times,
        position=motion.position[nearest],
        orientation=motion.orientation[nearest],
        joints=joints,
        goals=goals,
        picture_time=0.3 * shown.start + 0.7 * shown.end,
    )
    recording.save(options.out / "motion.npz")
    return options.out / "motion.npz"


def _say(text: str) -> None:
    print(text, flush=True)


def _clear(out: Path) -> None:
    """Remove what an earlier run left under the names that this one writes."""
    for name in ("results.json", "planner.json", "motion.npz", "video.mp4", "picture.png"):
        (out / name).unlink(missing_ok=True)


@contextmanager
def _ros(domain: int) -> Iterator[None]:
    """ROS 2 in a domain of its own on this machine."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    os.environ["ROS_DOMAIN_ID"] = str(domain)
    rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()


def _run(options: Options) -> int:
    os.environ.update(
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE"
    )
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    _clear(options.out)
    count, name = options.robots, options.embodiment.name
    who = name if count == 1 else f"{count} x {name}"
    with own_domain() as domain, Children(options.out) as children:
        _say(f"{who}, {options.model}; ROS_DOMAIN_ID={domain}, logs in {options.out}")
        with _ros(domain):
            numbers = [0] if count == 1 else range(1, count + 1)
            robots = [RobotRun(options, children, number) for number in numbers]
            scores, busy = _execute(robots, children)
        _finish(robots, scores, busy)
    return 0 if all(one.followed for one in scores.values()) else 1


def _interrupt(number: int, _frame: object) -> None:
    signal.signal(
        number, signal.SIG_IGN
    )  # ending takes a moment; a second signal must not leave children behind
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run the quickstart; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _run(parse(arguments))
    except UserError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    except ChildDied as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nquickstart: interrupted, all processes ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
