"""The suite under stock controllers: their rules against the suite's own simulation, and robots that walk."""

import numpy as np
import pytest
from stock_controllers import CONTROLLERS, TrajectoryController, walk

from tdmpc2_core.robots.trajectory import Trajectory, TrajectoryPlayer

PERIOD, CONTROL = 0.002, 0.02  # s: of the controller manager and of the planner


def chunks(rng, count: int = 200, rows: int = 3):
    """Trajectories as a planner sends them, with the jitter of their arrival, in periods of the manager."""
    points = np.cumsum(rng.normal(0.0, 0.05, (count + rows, 2)), axis=0)
    due = np.cumsum(rng.integers(8, 13, count))
    times = CONTROL * np.arange(1, rows + 1)
    return [(int(at), Trajectory(points[k : k + rows], times)) for k, at in enumerate(due)]


def played(from_desired: bool, sag: float) -> tuple[float, float]:
    """Largest difference, rad, between the stock controller's commands and those of the suite's simulation,
    where joints stand `sag` below their targets; and the largest step of the simulation's in one period."""
    rng = np.random.default_rng(0)
    stock = TrajectoryController(np.zeros(2), PERIOD, from_desired)
    own, waiting = TrajectoryPlayer(np.zeros(2)), dict(chunks(rng))
    target, far, most = np.zeros(2), 0.0, 0.0
    for step in range(max(waiting) + 50):
        now = step * PERIOD
        if step in waiting:
            stock.receive(waiting[step])
            own.set(waiting[step].points, waiting[step].times, now)
        before, target = target, own.sample(now + PERIOD)
        far = max(far, float(np.abs(stock.update(now, before - sag) - target).max()))
        most = max(most, float(np.abs(target - before).max()))
    return far, most


def test_the_simulation_plays_chunks_as_the_stock_controller_does_from_the_desired_state():
    """They differ by the period that the stock controller is ahead when a chunk comes, whatever joints do."""
    for sag in (0.0, 0.2):
        far, most = played(from_desired=True, sag=sag)
        assert 0.0 < far <= 1.05 * most


def test_from_the_measured_state_drives_lose_their_offset():
    """Every chunk begins a sag lower: the setting that controllers have by default."""
    far, most = played(from_desired=False, sag=0.2)
    assert far > 3.0 * most and far > 0.15


def test_the_controllers_sampling_step_by_step():
    """Worked by hand: 10 Hz manager, a chunk to 1 at 0.2 s and 3 at 0.4 s, the joint measured at -1."""
    chunk = Trajectory(np.array([[1.0], [3.0]]), np.array([0.2, 0.4]))
    measured = np.array([-1.0])
    for from_desired, expected in ((True, [2 / 3, 1.0, 2.0, 3.0, 3.0]), (False, [0.0, 1.0, 2.0, 3.0, 3.0])):
        stock = TrajectoryController(np.zeros(1), 0.1, from_desired)
        assert stock.update(0.9, measured) == [0.0]
        stock.receive(chunk)
        found = [float(stock.update(1.0 + 0.1 * k, measured)[0]) for k in range(5)]
        assert found == pytest.approx(expected)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("robot", "least"), [("quadruped", 0.92), ("humanoid", 0.90)])
@pytest.mark.parametrize("controller", ["from desired", "forward"])
def test_a_robot_walks_under_a_stock_controller(robot, least, controller):
    result = walk(robot, controller, 10.0, planner="policy")
    assert result.fell is None and not result.throws
    assert result.covered >= least and abs(result.yaw_rate) < 0.02
    assert controller == "forward" or result.limited == 0, "the limiter cut trajectories"


def test_the_setting_is_what_keeps_the_humanoid_up():
    assert set(CONTROLLERS) == {"from desired", "from measured", "forward"}
    assert walk("humanoid", "from measured", 4.0, planner="policy").fell is not None
