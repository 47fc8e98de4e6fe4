"""`python -m tdmpc2_ros.quickstart quadruped`: simulation and planner as ROS 2 processes, and a short course.

Starts mujoco_sim, planner and, where asked for, recorder in a DDS domain of their own on this machine, for
one robot or several; commands each through a course, or one by the terminal's keys (--drive); prints a table,
writes results.json and, where rendering works, a film and a picture of each. Exit code: 0 every
robot stayed up and followed, 1 one did not or a process died, 2 a mistake in the call.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc2_core.doctor import machine
from tdmpc2_core.envs.robot import film
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import claimed, write_json
from tdmpc2_ros.quickstart.options import PAGE, RESULTS, Options, parse
from tdmpc2_ros.quickstart.processes import ChildDied, Children, own_domain
from tdmpc2_ros.quickstart.report import comparison, table

if TYPE_CHECKING:
    from tdmpc2_ros.quickstart.trial import Trial

_FILMED = ("motion.npz", "video.mp4", "picture.png")
_MADE = (RESULTS, "planner.json", "robot[0-9]*.json", *_FILMED, *(f"robot[0-9]*/{name}" for name in _FILMED))


def _execute(options: Options, children: Children) -> tuple[list[Trial], dict[str, Any]]:
    """Start everything, drive, stop everything: the robots, and what their processes took of the machine.

    Raises UserError, ChildDied.
    """
    from tdmpc2_ros.quickstart.trial import Trial, drive

    numbers = range(1, options.robots + 1) if options.robots > 1 else (0,)
    with ExitStack() as operators:
        trials = [Trial(options, children, number) for number in numbers]
        for trial in trials:
            operators.callback(trial.operator.close)
        _say("starting simulation and planner")
        for trial in trials:
            trial.start_nodes()
        for trial in trials:
            trial.activate()
        _remove_former(options.out)
        if options.web:
            _say(f"robot and plan: {PAGE}")
        before = {child.name: child.cpu_seconds() or 0.0 for child in children.all}
        begin = time.monotonic()
        drive(trials, options.course.seconds)
        lasted = time.monotonic() - begin
        spent = {child.name: (child.cpu_seconds() or 0.0) - before[child.name] for child in children.all}
        usage = {
            "cpu_share_of_one_core": {name: s / lasted for name, s in spent.items()},
            "realtime_priority": {child.name: child.realtime() for child in children.all},
        }
        for trial in trials:
            trial.stop_planner()
        children.stop(*children.all)
    return trials, usage


def _remove_former(out: Path) -> None:
    """An earlier run's results must not pass for this one's, which runs now that everything has started."""
    for path in [path for pattern in _MADE for path in out.glob(pattern)]:
        path.unlink(missing_ok=True)


def _finish(options: Options, trials: list[Trial], usage: dict[str, Any]) -> bool:
    """Print and write what came of it; whether every robot followed."""
    scores = {trial.name: trial.score() for trial in trials}
    results = {trial.name: trial.results(scores[trial.name]) for trial in trials}
    content: dict[str, Any] = {
        "robot": options.embodiment.name,
        "seconds": options.course.seconds,
        "seed": options.seed,
        "randomise": options.randomise,
        "model": str(options.model),
    }
    if options.robots == 1:
        ((name, score),) = scores.items()
        one = results[name]
        print(table(score, one["planner"], one["simulation"], one["planner_memory_mb"]))
        content |= results[name]
    else:
        print(comparison(scores, {name: one["planner"] for name, one in results.items()}))
        content["robots"] = {name: one["score"] | one for name, one in results.items()}
    write_json(options.out / RESULTS, content | usage | {"machine": machine()})
    _say(f"results: {options.out / RESULTS}")
    if options.record:
        _say(f"bag: {options.record}")
    for trial in trials if options.video else ():  # robots do not share a world
        _say(film.make(trial.save_motion(), options.course.seconds))
    return all(score.followed for score in scores.values())


def _say(text: str) -> None:
    print(text, flush=True)


def _run(options: Options) -> int:
    os.environ.update(  # before rclpy is imported, which reads the first
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE"
    )
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    with claimed(options.out, "--out"), own_domain() as domain, Children(options.out) as children:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        robots = f"{options.robots} x {options.embodiment.name}".removeprefix("1 x ")
        _say(f"{robots}, {options.model}; ROS_DOMAIN_ID={domain}, logs in {options.out}")
        rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        try:
            trials, usage = _execute(options, children)
        finally:
            rclpy.try_shutdown()
    return 0 if _finish(options, trials, usage) else 1


def _interrupt(number: int, _frame: object) -> None:
    # ending takes a moment; a second signal must not leave children behind
    signal.signal(number, signal.SIG_IGN)
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
