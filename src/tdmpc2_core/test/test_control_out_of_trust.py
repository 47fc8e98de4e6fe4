"""What a robot does while the gate does not trust its model, by the rung chosen; actions in flight."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from random_agent import ROBOT
from test_control_decision import Bench, Script

from tdmpc2_core.control.decision import UNTRUSTED
from tdmpc2_core.control.latency import learned_delay

PERIOD = ROBOT.control_period


class Gate:
    """A monitor whose verdict is given."""

    def __init__(self) -> None:
        self.trusted, self.gate, self.again = True, None, 0

    def trust_again(self) -> None:
        self.trusted, self.again = True, self.again + 1


@pytest.fixture
def driven():
    made = []

    def make(rung: str) -> SimpleNamespace:
        bench = Bench(Script(0.2, slope=0.0))
        made.append(bench)
        gate = bench.decider._monitor = Gate()
        bench.decider.options.out_of_trust = rung
        bench.decider.options.deadline = 1.0
        return SimpleNamespace(bench=bench, gate=gate, agent=bench.decider._agent)

    yield make
    for bench in made:
        bench.decider.stop()


def ask(bench: Bench, speed: float) -> None:
    bench.sensors.set_command(bench.time + PERIOD, np.array([speed, 0.0, 0.0]))


def test_noted_the_robot_goes_on_by_its_plan(driven):
    robot = driven("note")
    robot.bench.tick()
    robot.gate.trusted = False
    decision = robot.bench.tick()
    assert (decision.mode, decision.untrusted) == ("plan", True)
    assert robot.agent.by_prior == [False, False]


def test_out_of_trust_the_policy_prior_decides_and_the_plan_comes_back_with_trust(driven):
    robot = driven("prior")
    for trusted in (True, False, False, True):
        robot.gate.trusted = trusted
        assert robot.bench.tick().untrusted is not trusted
    assert robot.agent.by_prior == [False, True, True, False]


@pytest.mark.parametrize("rung", ["hold", "posture"])
def test_a_stop_lasts_until_a_command_of_zero(driven, rung):
    robot = driven(rung)
    ask(robot.bench, 0.5)
    assert robot.bench.tick().mode == "plan"
    robot.gate.trusted = False
    for _ in range(60):
        ask(robot.bench, 0.5)
        decision = robot.bench.tick()
        assert decision.mode == "hold" and decision.reason == UNTRUSTED
    ask(robot.bench, 0.0)
    assert robot.bench.tick().mode == "plan"
    assert robot.gate.again == 1


def test_a_stop_lasts_a_second_also_where_nothing_was_commanded(driven):
    robot = driven("hold")
    robot.bench.tick()
    robot.gate.trusted = False
    modes = [robot.bench.tick().mode for _ in range(60)]
    assert 49 <= modes.count("hold") <= 51 and modes[-1] == "plan"


def test_the_way_to_the_safe_posture_is_straight_and_takes_its_time(driven):
    robot = driven("posture")
    start = robot.bench.tick().targets[0]
    robot.gate.trusted = False
    ticks = round(ROBOT.safety.posture_seconds / PERIOD)
    rows = [robot.bench.tick(position=start).targets[0] for _ in range(ticks + 2)]
    assert np.abs(start - ROBOT.safe_posture).max() > 0.01
    assert rows[-1] == pytest.approx(ROBOT.safe_posture)
    share = (ticks // 2 + 1) / ticks
    expected = start + share * (ROBOT.safe_posture - start)
    assert rows[ticks // 2] == pytest.approx(expected, abs=1e-6)


def test_plans_are_made_ahead_of_the_actions_in_flight_where_that_is_asked_for(driven):
    robot = driven("prior")
    options = robot.bench.decider.options
    for _ in range(3):
        robot.bench.tick()
    options.compensate_delay, options.actuation_delay = True, 2 * PERIOD + learned_delay(ROBOT)
    robot.bench.tick()
    robot.bench.decider.command_left(PERIOD)
    robot.bench.tick()
    assert [flying if flying is None else len(flying) for flying in robot.agent.in_flight] == [
        None, None, None, 2, 3,
    ]  # fmt: skip
    assert robot.agent.in_flight[-1] == pytest.approx(0.2)
