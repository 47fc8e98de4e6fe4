"""Robots on their courses: each one's processes and operator, from start to score.

Several share one DDS domain, each in a namespace of its own: robot1/cmd_vel commands robot1 and no other. Odd
ones turn left, even ones right; each is judged by its own course.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lifecycle_msgs.msg import Transition

from tdmpc2_core.envs.robot.film import Recording, ground_fields
from tdmpc2_core.errors import UserError
from tdmpc2_core.scoring.course import Course, ReachCourse
from tdmpc2_core.scoring.reaching import score_reach
from tdmpc2_core.scoring.walking import score_walk
from tdmpc2_ros.doctor.checks import loopback
from tdmpc2_ros.live_line import LiveLine
from tdmpc2_ros.naming import robot_name
from tdmpc2_ros.quickstart.driving import Drive, score_drive
from tdmpc2_ros.quickstart.operator import Operator
from tdmpc2_ros.quickstart.options import Options
from tdmpc2_ros.quickstart.processes import Child, ChildDied, Children
from tdmpc2_ros.quickstart.report import Score, verdict

if TYPE_CHECKING:
    from tdmpc2_core.envs.robot.ground import TerrainState

_START_SECONDS, _CONFIGURE_SECONDS = 30.0, 90.0  # of one robot; twice as long where several start at once
_COMMAND_PERIOD = 0.05  # s: cmd_vel at 20 Hz
_PATIENT_MS = 300.0  # search time per decision where simulated time waits: the budget ends the search
_FILM_SECONDS = 60.0  # the end of a drive
_CATCH_UP = 0.05  # s in which an operator takes what has waited for it
_STANDSTILL = 30.0  # s without progress of simulated time after which the run is given up


class Trial:
    """One robot: its namespace, processes, operator and course.

    Args:
        number: place among several, from 1, which gives it a namespace; 0 for a robot alone.
    """

    def __init__(self, options: Options, children: Children, number: int = 0) -> None:
        self._options, self._children = options, children
        self.name = robot_name(number) if number else ""
        self.course: Course | ReachCourse | Drive = options.course
        if number:
            self.course = Course(options.embodiment, options.course.seconds, mirrored=number % 2 == 0)
        self.operator = Operator(options.embodiment, children.check, self.name, not options.real_time)
        self._patience = 2.0 if number else 1.0
        self._seed = options.seed + max(0, number - 1)
        self._report = options.out / f"{self.name or 'planner'}.json"
        self._planner: Child | None = None
        self._start = 0.0  # node clock at the beginning of the course, s
        self._begin = 0.0  # steady clock then, s
        self._factor = 1.0  # simulated s per s, over the course
        self._resets = 0
        self._memory: float | None = None  # MB, most that the planner took

    def start_nodes(self) -> None:
        """Start simulation, planner and, where asked for, recorder."""
        options, robot = self._options, str(self._options.embodiment.directory)
        simulation = {"robot": robot, "seed": self._seed, "reset_noise": True}
        simulation |= {"randomise": options.randomise, "view": options.view}
        if not options.real_time:
            rate = options.embodiment.control_rate
            simulation |= {"lock_step": True, "publish_clock": True, "sensor_rate": rate}
        self._children.start("mujoco_sim", "tdmpc2_ros.simulator.node", simulation, self.name)
        watched = {"robot": robot, "model": str(options.model), "use_sim_time": not options.real_time}
        self._children.start("supervisor", "tdmpc2_ros.supervisor.node", watched, self.name)
        parameters = {"supervisor": True, "model": str(options.model), "robot": robot, "seed": self._seed}
        parameters |= {"method": options.planner, "report": str(self._report)}
        if options.deadline_ms is not None:
            parameters["deadline_ms"] = options.deadline_ms
        elif not options.real_time:
            parameters["deadline_ms"] = _PATIENT_MS
        parameters["use_sim_time"] = not options.real_time
        self._planner = self._children.start("planner", "tdmpc2_ros.planner.node", parameters, self.name)
        if options.web:
            page = {"robot": robot}
            self._children.start("view", "tdmpc2_ros.view", page, self.name, urgent=False)
        if options.record:
            output = {"output": str(options.record), "use_sim_time": not options.real_time}
            self._children.start("recorder", "tdmpc2_ros.recorder.node", output, self.name)

    def activate(self) -> None:
        """Bring the planner to active. Raises UserError, ChildDied."""
        operator, planner = self.operator, self._planner
        assert planner is not None
        start, configure = self._patience * _START_SECONDS, self._patience * _CONFIGURE_SECONDS
        if not operator.wait(operator.ready, start):
            simulation = f"{self.name}_mujoco_sim".lstrip("_")
            out = self._options.out
            cause = loopback() or operator.discovery() or f"see its log in {out}"
            raise ChildDied(f"{simulation} sends nothing after {start:g} s: {cause}")
        if self._options.web and not operator.wait(operator.watched, start):  # its start takes the cores
            raise ChildDied(f"view does not listen after {start:g} s; see its log in {self._options.out}")
        for transition, name, limit in (
            (Transition.TRANSITION_CONFIGURE, "configure", configure),
            (Transition.TRANSITION_ACTIVATE, "activate", start),
        ):
            answer = operator.transition(transition, limit)
            if answer is None:
                silent = f"{planner.name} does not answer to {name} within {limit:g} s"
                raise ChildDied(f"{silent}:\n{planner.tail()}")
            if not answer:
                raise UserError(planner.complaint() or f"{planner.name} refused to {name}; see {planner.log}")
        if not operator.wait(lambda: operator.commands > 0, start):
            raise ChildDied(f"{planner.name} sends no commands:\n{planner.tail()}")

    def begin(self) -> None:
        """The course starts now."""
        self._start, self.operator.recording = self.operator.now(), True
        self._begin = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning of the course, on the clock that the robot lives by."""
        return self.operator.now() - self._start

    def command(self) -> None:
        """Send what the course asks for at this time."""
        if not isinstance(self.course, Drive):
            self.operator.command(self.course.at(self.elapsed).command)
            return
        if (command := self.course.steer(self.elapsed)) is not None:
            self.operator.command(command)
        if self.course.reset:
            self.course.reset = False
            self.operator.reset()
            self._resets += 1

    @property
    def over(self) -> bool:
        """Whether a key ended the drive."""
        return isinstance(self.course, Drive) and self.course.ended

    def end(self) -> None:
        """The course is over; what is still on its way is served."""
        self._factor = self.elapsed / (time.monotonic() - self._begin)
        if isinstance(self.course, Drive):
            self.course.seconds = self.elapsed
        self.operator.spin(0.1)
        self.operator.recording = False

    @property
    def simulation(self) -> dict[str, Any]:
        """How simulated time went: share of real time, and what it waited for."""
        waits = {
            name.removeprefix("lock_step_"): float(value)
            for name, value in self.operator.simulation.items()
            if name.startswith("lock_step_")
        }
        return {"lock_step": not self._options.real_time, "real_time_factor": self._factor, **waits}

    def stop_planner(self) -> None:
        """End the planner, which then writes its report; before the simulation, which it would miss."""
        assert self._planner is not None
        self._memory = self._planner.peak_megabytes()
        self._children.stop(self._planner)

    def score(self) -> Score:
        """How it went."""
        if isinstance(self.course, Drive):
            return score_drive(self.operator.motion(self._start), self.course, self.operator.falls.count)
        if isinstance(self.course, ReachCourse):
            return score_reach(*self.operator.tool(self._start), self.course)
        return score_walk(self.operator.motion(self._start), self.course, self._options.embodiment)

    def results(self, score: Score) -> dict[str, Any]:
        """What results.json says of this robot; of the planner what it wrote when it stopped."""
        planner = json.loads(self._report.read_text()) if self._report.is_file() else {}
        return {
            "course": [vars(segment) for segment in self.course.segments],
            "score": score.to_dict(),
            "verdict": verdict(score),
            "planner": planner,
            "simulation": self.simulation,
            "planner_memory_mb": self._memory,
        }

    # ---- the live line ----

    def briefly(self, elapsed: float) -> str:
        """A few words, for the line of several."""
        operator, latency = self.operator, self.operator.latency.get("latency_ms.p99", "-")
        return f"{self.name} {self.course.at(elapsed).name} {operator.walked:.1f} m, p99 {latency} ms"

    def in_words(self, elapsed: float) -> str:
        """The line of a robot alone."""
        course, part, latency = self.course, self.course.at(elapsed), self.operator.latency
        if isinstance(course, ReachCourse):
            text = self._reaching(course, elapsed)
        else:
            x, y, yaw = part.command
            text = (
                f"command {x:.2f} {y:+.2f} m/s {yaw:+.2f} rad/s  speed {self.operator.speed:.2f} m/s  "
                f"distance {self.operator.walked:.1f} m  falls {self.operator.falls.count}"
            )
        return (
            f"{elapsed:5.1f}/{course.seconds:g} s  {part.name:5s}  {text}  "
            f"latency p50 {latency.get('latency_ms.p50', '-')} p99 {latency.get('latency_ms.p99', '-')} ms"
        )

    def _reaching(self, course: ReachCourse, elapsed: float) -> str:
        goal = course.at(elapsed)
        _, tool = self.operator.tool(self._start, newest=True)
        distance, angle = course.error(tool[-1], goal) if len(tool) else (np.nan, np.nan)
        x, y, z = goal.command[:3]
        return f"({x:.2f}, {y:+.2f}, {z:.2f}) m  {1000 * distance:4.0f} mm {angle:.2f} rad away"

    # ---- the film ----

    def _ground(self) -> TerrainState | None:
        """The ground that the simulation drew: the same seed draws the same. None where it is flat, or where
        a key has put the robot on another one."""
        options = self._options
        if not options.randomise or not options.embodiment.randomisation.terrain or self._resets:
            return None
        from tdmpc2_core.envs.robot.realtime import RobotOptions, SimulatedRobot  # loads MuJoCo

        drawn = RobotOptions(randomise=True, reset_noise=True)
        terrain = SimulatedRobot(options.embodiment, drawn, self._seed).simulation.terrain
        return terrain.state() if terrain else None

    def save_motion(self) -> Path:
        """Write what a film is made of, of several robots each into a folder of its own; returns the file."""
        times, joints = self.operator.joints(self._start)
        if isinstance(self.course, Drive):
            last = times >= times[-1:] - _FILM_SECONDS
            times, joints = times[last], joints[last]
        motion = self.operator.motion(self._start)
        nearest = np.clip(np.searchsorted(motion.time, times), 0, len(motion.time) - 1)
        course = self.course
        shown = next((part for part in course.segments if part.name == "walk"), course.segments[0])
        goals = np.zeros((0, 7))
        if isinstance(course, ReachCourse):
            goals = np.array([course.at(time).command for time in times])
        recording = Recording(
            **ground_fields(self._ground()),
            robot=str(self._options.embodiment.directory),
            time=times,
            position=motion.position[nearest],
            orientation=motion.orientation[nearest],
            joints=joints,
            goals=goals,
            picture_time=0.3 * shown.start + 0.7 * shown.end,
        )
        path = self._options.out / self.name / "motion.npz"
        path.parent.mkdir(exist_ok=True)
        recording.save(path)
        return path


def drive(trials: Sequence[Trial], seconds: float) -> None:
    """Take all robots through their courses at once. Raises what the operators' idle calls raise."""
    course = trials[0].course
    if not isinstance(course, Drive):
        _drive(trials, seconds)
        return
    with course:
        _drive(trials, seconds)


def _drive(trials: Sequence[Trial], seconds: float) -> None:
    for trial in trials:  # while the others were brought up, nobody served its /clock
        trial.operator.spin(_CATCH_UP)
    live, tick, begin = LiveLine(), 0, time.monotonic()
    for trial in trials:
        trial.begin()
    slowest, moved = 0.0, begin
    while not trials[0].over and (elapsed := min(trial.elapsed for trial in trials)) < seconds:
        if elapsed > slowest:
            slowest, moved = elapsed, time.monotonic()
        elif time.monotonic() - moved > _STANDSTILL:
            raise ChildDied(f"simulated time stands still at {elapsed:.2f} s of the course; see the logs")
        for trial in trials:
            trial.command()
        if len(trials) == 1:
            live.show(trials[0].in_words(elapsed))
        else:
            live.show(f"{elapsed:5.1f} s  " + "   ".join(trial.briefly(elapsed) for trial in trials))
        tick += 1
        share = max(0.0, begin + tick * _COMMAND_PERIOD - time.monotonic()) / len(trials)
        for trial in trials:
            trial.operator.spin(share)
    for trial in trials:
        trial.end()
    live.end()
