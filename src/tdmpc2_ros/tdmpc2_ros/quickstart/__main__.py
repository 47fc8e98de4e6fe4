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
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2_core.errors import UserError
from tdmpc2_core.scoring.course import Segment
from tdmpc2_core.scoring.goal_course import Goal, ReachCourse, ReachScore, score_reach
from tdmpc2_core.scoring.run_metrics import Score, score
from tdmpc2_ros.quickstart import several, video
from tdmpc2_ros.quickstart.options import Options, parse
from tdmpc2_ros.quickstart.processes import Child, ChildDied, Children, own_domain
from tdmpc2_ros.quickstart.report import LiveLine, machine, table, verdict, write_json

_START_SECONDS, _CONFIGURE_SECONDS = 30.0, 90.0
_COMMAND_PERIOD = 0.05  # s: cmd_vel at 20 Hz
_REPORT = "planner.json"


class Run:
    """One run in a folder: its processes, its operator, its results."""

    def __init__(self, options: Options, children: Children) -> None:
        from tdmpc2_ros.quickstart.operator import Operator

        self.options, self.children = options, children
        self.operator = Operator(options.embodiment, children.check)
        self.start = 0.0  # node clock at the beginning of the course, s
        self._memory: float | None = None
        self._busy: dict[str, float] = {}
        self._realtime: dict[str, bool] = {}

    def execute(self) -> Score | ReachScore:
        """Start everything, run the course, stop everything. Raises UserError, ChildDied."""
        planner = self._start_nodes()
        self._activate(planner)
        self._drive()
        self._memory = planner.peak_megabytes()
        self.children.stop(planner)
        for child in reversed(list(self.children.all)):
            self.children.stop(child)
        course = self.options.course
        if isinstance(course, ReachCourse):
            return score_reach(*self.operator.tool(self.start), course)
        return score(self.operator.motion(self.start), course, self.options.embodiment)

    def _start_nodes(self) -> Child:
        options, robot = self.options, self.options.embodiment
        _say("starting simulation and planner")
        simulation = {"robot": str(robot.directory), "seed": options.seed, "reset_noise": True}
        simulation |= {"randomise": options.randomise, "view": options.view}
        self.children.start("mujoco_sim", "tdmpc2_ros.simulator.node", simulation)
        parameters = {"model": str(options.model), "robot": str(robot.directory), "seed": options.seed}
        parameters |= {"method": options.planner, "report": str(options.out / _REPORT)}
        if options.deadline_ms is not None:
            parameters["deadline_ms"] = options.deadline_ms
        planner = self.children.start("planner", "tdmpc2_ros.planner.node", parameters)
        if options.record:
            self.children.start("recorder", "tdmpc2_ros.recorder.node", {"output": str(options.record)})
        if not self.operator.wait(self.operator.ready, _START_SECONDS):
            raise ChildDied(
                f"mujoco_sim sends nothing after {_START_SECONDS:g} s; see its log in {options.out}"
            )
        return planner

    def _activate(self, planner: Child) -> None:
        from lifecycle_msgs.msg import Transition

        for number, name, limit in (
            (Transition.TRANSITION_CONFIGURE, "configure", _CONFIGURE_SECONDS),
            (Transition.TRANSITION_ACTIVATE, "activate", _START_SECONDS),
        ):
            answer = self.operator.transition(number, limit)
            if answer is None:
                raise ChildDied(f"planner does not answer to {name} within {limit:g} s:\n{planner.tail()}")
            if not answer:
                raise UserError(planner.complaint() or f"planner refused to {name}; see {planner.log}")
        if not self.operator.wait(lambda: self.operator.commands > 0, _START_SECONDS):
            raise ChildDied(f"planner sends no commands:\n{planner.tail()}")

    def _drive(self) -> None:
        operator, course, live = self.operator, self.options.course, LiveLine()
        before = {child.name: child.cpu_seconds() or 0.0 for child in self.children.all}
        self.start, begin = operator.now(), time.monotonic()
        operator.recording, tick = True, 0
        while (elapsed := time.monotonic() - begin) < course.seconds:
            segment = course.at(elapsed)
            operator.command(segment.command)
            live.show(self._line(elapsed, segment))
            tick += 1
            operator.spin(max(0.0, begin + tick * _COMMAND_PERIOD - time.monotonic()))
        operator.spin(0.1)
        operator.recording = False
        live.end()
        spent = {child.name: (child.cpu_seconds() or 0.0) - before[child.name] for child in self.children.all}
        self._busy = {name: seconds / course.seconds for name, seconds in spent.items()}
        self._realtime = {child.name: child.realtime() for child in self.children.all}

    def _line(self, elapsed: float, segment: Segment | Goal) -> str:
        course, command, latency = self.options.course, segment.command, self.operator.latency
        if isinstance(course, ReachCourse):
            text = self._reaching(course, course.at(elapsed))
        else:
            row = self.operator.newest
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
        _, tool = self.operator.tool(self.start, newest=True)
        distance, angle = course.error(tool[-1], goal) if len(tool) else (np.nan, np.nan)
        x, y, z = goal.command[:3]
        return f"({x:.2f}, {y:+.2f}, {z:.2f}) m  {1000 * distance:4.0f} mm {angle:.2f} rad away"

    def finish(self, result: Score | ReachScore) -> None:
        """Print and write what came of it."""
        options = self.options
        report = options.out / _REPORT
        planner: dict[str, Any] = json.loads(report.read_text()) if report.is_file() else {}
        print(table(result, planner, self._memory))
        content = {
            "robot": options.embodiment.name,
            "seconds": options.course.seconds,
            "seed": options.seed,
            "randomise": options.randomise,
            "model": str(options.model),
            "course": [vars(segment) for segment in options.course.segments],
            "score": result.to_dict(),
            "verdict": verdict(result),
            "planner": planner,
            "planner_memory_mb": self._memory,
            "cpu_share_of_one_core": self._busy,
            "realtime_priority": self._realtime,
            "machine": machine(),
        }
        write_json(options.out / "results.json", content)
        _say(f"results: {options.out / 'results.json'}")
        if options.record:
            _say(f"bag: {options.record}")
        if options.video:
            _say(video.make(self._save_motion(), options.course.seconds))

    def _save_motion(self) -> Path:
        times, joints = self.operator.joints(self.start)
        motion = self.operator.motion(self.start)
        nearest = np.clip(np.searchsorted(motion.time, times), 0, len(motion.time) - 1)
        course, walks = self.options.course, [s for s in self.options.course.segments if s.name == "walk"]
        shown = (walks or course.segments)[0]
        goals = np.zeros((0, 7))
        if isinstance(course, ReachCourse):
            goals = np.array([course.at(time).command for time in times])
        recording = video.Recording(
            robot=str(self.options.embodiment.directory),
            time=times,
            position=motion.position[nearest],
            orientation=motion.orientation[nearest],
            joints=joints,
            goals=goals,
            picture_time=0.3 * shown.start + 0.7 * shown.end,
        )
        recording.save(self.options.out / "motion.npz")
        return self.options.out / "motion.npz"


def _say(text: str) -> None:
    print(text, flush=True)


def _clear(out: Path) -> None:
    """Remove what an earlier run left under the names that this one writes."""
    for name in ("results.json", _REPORT, "motion.npz", "video.mp4", "picture.png"):
        (out / name).unlink(missing_ok=True)


def _run(options: Options) -> int:
    os.environ.update(
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE"
    )
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    _clear(options.out)
    with own_domain() as domain, Children(options.out) as children:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        _say(f"{options.embodiment.name}, {options.model}; ROS_DOMAIN_ID={domain}, logs in {options.out}")
        rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        try:
            run = Run(options, children)
            result = run.execute()
        finally:
            rclpy.try_shutdown()
        run.finish(result)
    return 0 if result.followed else 1


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
        options = parse(arguments)
        return _run(options) if options.robots == 1 else several.run(options)
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
