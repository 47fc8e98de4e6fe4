"""What the calibrated trust gate notices, how late, how often it is wrong; what it does against falls.

Quadrupeds walk in simulation under their bundle's policy prior on drawn commands. The gate is calibrated on
good runs: of the nominal robot, or of robots as in training (`--randomised`). Held-out good runs give false
alarms. In changed runs the change comes 5 s after the start and lasts 10 s. The last column, of changes under
which robots fall: they run again, and go to the safe posture once out of trust. Plausibility of the sensors
is not looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.bundle import weights_digest
from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration
from tdmpc2_core.control.gate_fit import BLOCK_SECONDS, HORIZON, Fitter, Run, blocks, calibrate_trust
from tdmpc2_core.control.gate_runs import simulated_runs
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.robots import ActionMapper, Embodiment

SECONDS, ONSET = 15.0, 5.0  # s of a changed run, and when the change comes
_GOOD, _HELD_OUT, _CHANGED = 1000, 2000, 9000  # seeds

Simulated = Callable[[RobotEnv, int], None]
Seen = Callable[[Embodiment, np.ndarray, int], None]


class Change(NamedTuple):
    """What comes over robots: in their worlds (robot, number), in what is seen (newest readings (N, S) of a
    term), or in the ranges they are drawn from, then from the start on."""

    world: Simulated | None = None
    term: str = ""
    see: Callable[[np.ndarray], None] | None = None
    delay: float = 0.0  # s more
    randomisation: dict[str, Any] | None = None


def _joint(robot: RobotEnv, number: int, factor: float) -> np.ndarray:
    factors = np.ones(robot.embodiment.num_joints)
    factors[number % len(factors)] = factor
    return factors


def _zero(readings: np.ndarray) -> None:
    readings[:] = 0.0


def _one_off(readings: np.ndarray) -> None:
    rows = np.arange(len(readings))
    readings[rows, rows % readings.shape[1]] += 1.0


CHANGES = {
    "5 kg payload": Change(lambda robot, _: robot.simulation.set_extra_mass(5.0)),
    "friction 0.1": Change(lambda robot, _: robot.simulation.set_friction(0.1)),
    "dead gyro": Change(term="gyro", see=_zero),
    "one motor at half torque": Change(lambda robot, k: robot.simulation.set_effort(_joint(robot, k, 0.5))),
    "delay 40, then 60 ms": Change(delay=0.02, randomisation={"delay": [0.04, 0.04]}),
    "one joint read 1 rad off": Change(term="joint_position", see=_one_off),
    "gains 0.6": Change(
        lambda robot, _: robot.simulation.set_gains(np.full(robot.embodiment.num_joints, 0.6))
    ),
    "slope 8 degrees, no delay": Change(randomisation={"slope": [8.0, 8.0]}),
}
"""By name. Good runs have the embodiment's mean delay, 12 ms. A delay of 40 ms and a slope are there from the
start."""


class Walk:
    """N robots that a change comes over."""

    def __init__(self, agent: Agent, change: Change, robots: int) -> None:
        assert agent.embodiment is not None
        robot, self.agent, self.change = agent.embodiment, agent, change
        if change.randomisation is not None:  # room for the delay, or another ground
            content = robot.to_dict() | {"randomisation": change.randomisation}
            robot = Embodiment.from_dict(content, directory=robot.directory)
        self.from_start = change.randomisation is not None and not change.delay
        self.env = BatchEnv(robot, robots, _CHANGED, EnvOptions(randomise=self.from_start))
        self.robot, self.onset = robot, round(ONSET * robot.control_rate)
        self.steps = round(SECONDS * robot.control_rate)
        self._faulty = 0  # readings in the history that the change has reached

    def run(self, stopped: np.ndarray | None = None) -> tuple[list[Run], np.ndarray]:
        """Runs of all robots, and the decision (N,) at which each fell, or the number of decisions.

        stopped: (N,) decision from which each goes to its safe posture; None: no robot does.
        """
        env, count = self.env, self.env.count
        observation, length = env.reset(), np.full(count, self.steps)
        self.agent.reset()
        seen = np.empty((count, self.steps, self.robot.observation_dim), np.float32)
        done = np.empty((count, self.steps, self.robot.action_dim), np.float32)
        for t in range(self.steps):
            self._change(t)
            seen[:, t] = self._see(observation, t)
            action = self.agent.act(seen[:, t], np.full(count, t == 0), True, use_prior=True).action
            if stopped is not None:
                action = self._stop(action, done, stopped, t)
            done[:, t] = action
            step = env.step(action)
            observation = step.observation
            fell = (step.terminated | step.truncated) & (length == self.steps)
            length[fell] = t + 1
        return [Run(*pair) for pair in zip(seen, done, strict=True)], length

    def _change(self, t: int) -> None:
        if t != self.onset:
            return
        self.env.delay[:] += self.change.delay
        if self.change.world is not None:
            for number, robot in enumerate(self.env.robots):
                self.change.world(robot, number)

    def _see(self, observation: np.ndarray, t: int) -> np.ndarray:
        """The observation, changed in those readings of its history that are younger than the onset."""
        if self.change.see is None or t < self.onset:
            return observation
        observation = observation.copy()
        block = next(b for b in self.robot.observation_layout if b.name == self.change.term)
        for age in range(min(block.history, t - self.onset + 1)):
            start = block.start + age * block.size
            self.change.see(observation[:, start : start + block.size])
        return observation

    def _stop(self, action: np.ndarray, done: np.ndarray, stopped: np.ndarray, t: int) -> np.ndarray:
        """Actions on the straight way from the last one before the stop to the safe posture."""
        posture = self.robot.safe_posture
        assert posture is not None
        goal = ActionMapper(self.robot).action(posture)
        ticks = max(1.0, self.robot.safety.posture_seconds * self.robot.control_rate)
        for row in np.flatnonzero(t > stopped):
            share = min(1.0, (t - stopped[row]) / ticks)
            start = done[row, stopped[row]]
            action[row] = start + share * (goal - start)
        return action


def kept(folder: Path | None, name: str, make: Callable[[], tuple[list[Run], np.ndarray]]) -> Any:
    """Runs and their lengths, from the folder where an earlier call left them."""
    path = None if folder is None else folder / f"{name.replace(' ', '_')}.npz"
    if path is not None and path.is_file():
        found = np.load(path)
        return [Run(*pair) for pair in zip(found["obs"], found["act"], strict=True)], found["length"]
    runs, length = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        observation, action = (np.stack(part) for part in zip(*runs, strict=True))
        np.savez(path, obs=observation, act=action, length=length)
    return runs, length


def good(agent: Agent, hours: float, randomise: bool, seed: int) -> tuple[list[Run], np.ndarray]:
    """Good runs, all of one length."""
    runs = list(simulated_runs(agent, hours, randomise, seed))
    return runs, np.array([len(run.action) for run in runs])


def scores(fitter: Fitter, runs: list[Run], calibration: TrustCalibration) -> np.ndarray:
    """(T, N) over the threshold; NaN before the first."""
    found = np.full((len(runs[0].action), len(runs)), np.nan)
    for start in range(0, len(runs), 60):
        part = list(fitter.scores(runs[start : start + 60], calibration))
        found[HORIZON:, start : start + 60] = np.stack(part) / calibration.threshold[0]
    return found


def alarms(found: np.ndarray, begin: int, length: np.ndarray) -> np.ndarray:
    """The decision (N,) of the first alarm from `begin` on, before the robot fell; -1 for none."""
    time = np.arange(len(found))[:, None]
    above = (found > 1.0) & (time >= begin) & (time < length)
    return np.where(above.any(0), above.argmax(0), -1)


def false_alarms(found: np.ndarray, period: float) -> dict[str, float]:
    """Per hour of held-out good runs, each run counting once as trust ends in it once."""
    count, hours = int((np.nanmax(found, 0) > 1.0).sum()), found.size * period / 3600.0
    return {"alarms": count, "hours": hours, "per hour": count / hours}


def row_of(name: str, walk: Walk, found: np.ndarray, length: np.ndarray, loose: float) -> dict[str, Any]:
    """Of one change: scores (T, N), when each robot fell, and a threshold that is crossed more often."""
    begin = 0 if walk.from_start else walk.onset
    first, fell = alarms(found, begin, length), length < walk.steps
    noticed, falls = first >= 0, float("nan")
    if fell.any():
        again = Walk(walk.agent, walk.change, len(first))
        _, stopped = again.run(np.where(noticed, first, walk.steps))
        falls = float((stopped < walk.steps).sum())
    delay = (first[noticed] - begin) * walk.robot.control_period
    return {
        "change": name,
        "robots": len(first),
        "noticed %": 100.0 * float(noticed.mean()),
        "delay p50 s": float(np.median(delay)) if noticed.any() else float("nan"),
        "delay p90 s": float(np.percentile(delay, 90)) if noticed.any() else float("nan"),
        "falls": int(fell.sum()),
        "noticed before": int((fell & noticed).sum()),
        "falls with posture": falls,
        "noticed % at 6 per hour": 100.0 * float((alarms(found / loose, begin, length) >= 0).mean()),
    }


def cases(
    agent: Agent, robots: int, folder: Path | None
) -> Iterator[tuple[str, Walk, list[Run], np.ndarray]]:
    """Every change with its runs."""
    for name, change in tqdm(CHANGES.items(), unit="change"):
        walk = Walk(agent, change, robots)
        yield name, walk, *kept(folder, name, walk.run)


def draw(found: dict[str, np.ndarray], period: float, path: Path) -> None:
    """The median score over time of each change."""
    chart, axes = figure(
        "Departure from good runs; trust ends at 1", "s since the start", "score, median robot"
    )
    for name, values in found.items():
        median = np.nanmedian(values[HORIZON:], 1)
        axes.semilogy(np.arange(HORIZON, len(values)) * period, median, label=name)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.legend(fontsize=7)
    save_figure(chart, path)


def main() -> int:
    """Print the table; write trust_gate.json and its plot."""
    options = parser(__doc__ or "", "python benchmarks/trust_gate.py --keep runs/trust_gate")
    options.add_argument("--robots", type=natural, default=32, help="per change (default %(default)s)")
    options.add_argument(
        "--hours", type=positive, default=1.34, help="good runs of each kind (default %(default)s)"
    )
    options.add_argument("--randomised", action="store_true", help="good runs as in training, and pushed")
    options.add_argument("--keep", type=Path, metavar="DIR", help="where runs are kept for another call")
    given = options.parse_args()
    torch.set_num_threads(1)
    agent = Agent.load("quadruped", seed=0)
    robot = agent.embodiment
    if robot is None:
        raise UserError("the shipped quadruped is of no robot; install the package again")
    kind = "randomised" if given.randomised else "nominal"
    runs, _ = kept(given.keep, kind, lambda: good(agent, given.hours, given.randomised, _GOOD))
    calibration = calibrate_trust(agent, runs, 1.0, weights_digest(agent.model.state_dict()))
    fitter, found, rows = Fitter(agent), dict[str, np.ndarray](), []
    held, _ = kept(
        given.keep, f"{kind} held out", lambda: good(agent, given.hours, given.randomised, _HELD_OUT)
    )
    good_scores = scores(fitter, blocks(held, fitter.rate), calibration)
    wrong = false_alarms(good_scores, robot.control_period)
    loose = float(np.quantile(np.nanmax(good_scores, 0), 1.0 - 6.0 * BLOCK_SECONDS / 3600.0))
    print(f"false alarms: {wrong['alarms']} in {wrong['hours']:.2f} h")
    for name, walk, changed, length in cases(agent, given.robots, given.keep):
        found[name] = scores(fitter, changed, calibration)
        rows.append(row_of(name, walk, found[name], length, loose))
    print_table(rows)
    out, title = results_of(given.out), "trust_gate" + "_randomised" * given.randomised
    save(out, title, rows, calibrated_hours=float(calibration.hours[0]), false_alarms=wrong)
    draw(found, robot.control_period, out / f"{title}.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
