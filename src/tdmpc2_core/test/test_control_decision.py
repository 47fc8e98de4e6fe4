"""Decisions: fall-backs, holds, goals of an arm, safety of every row; agents fail as they are told."""

from __future__ import annotations

import time

import numpy as np
import pytest
from random_agent import ROBOT, random_agent

from tdmpc2_core.control.decision import NO_GOAL, Decider, DecisionOptions
from tdmpc2_core.planning import Plan
from tdmpc2_core.robots import Embodiment, SensorState
from tdmpc2_core.robots.rotations import from_roll_pitch_yaw

PERIOD = ROBOT.control_period
ARM = Embodiment.load("arm")
GOAL = (0.5, 0.1, 0.4, 1.0, 0.0, 0.0, 0.0)


class Script:
    """An agent whose plans are given: a float is the action of every joint, an exception is raised, a pair
    (s, action) comes after s seconds. Rows of a plan differ by `slope`."""

    def __init__(self, *answers, prior=0.0, robot=ROBOT, slope=0.1) -> None:
        agent = random_agent(robot)
        self.embodiment, self.planner_config, self.model = robot, agent.planner_config, agent.model
        self.answers, self.prior, self.firsts, self.observations = list(answers), prior, [], []
        self.slope, self.trust, self.control_period = slope, None, robot.control_period
        self.in_flight, self.by_prior = [], []

    def plan(
        self,
        obs,
        now,
        deadline=None,
        first=False,
        evaluate=True,
        task=None,
        use_prior=False,
        in_flight=None,
    ):
        self.in_flight.append(in_flight)
        self.by_prior.append(use_prior)
        self.firsts.append(first)
        self.observations.append(obs)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, tuple):
            time.sleep(answer[0])
            answer = answer[1]
        if isinstance(answer, Exception):
            raise answer
        count, period = self.embodiment.action_dim, self.embodiment.control_period
        actions = np.stack([np.full(count, answer + self.slope * k, np.float32) for k in range(3)])
        return Plan(actions, np.ones_like(actions), period, now, 0.0, 1, "budget")

    def act(self, obs, evaluate=True, task=None, use_prior=False):
        if isinstance(self.prior, Exception):
            raise self.prior
        return type(
            "Result", (), {"action": np.full((1, self.embodiment.action_dim), self.prior, np.float32)}
        )

    def reset(self):
        pass


class Bench:
    """A decider with sensors that are fresh at every tick unless told otherwise."""

    def __init__(self, agent) -> None:
        self.robot = agent.embodiment
        self.sensors, self.time = SensorState(self.robot), 100.0
        self.decider = Decider(agent, self.sensors, DecisionOptions())

    def tick(self, fresh=True, position=None, **options):
        robot = self.robot
        self.time += robot.control_period
        if fresh:
            position = robot.default_position if position is None else position
            self.sensors.set_joints(self.time, robot.joint_names, position, np.zeros(robot.num_joints))
            self.sensors.set_imu(self.time - 0.003, (0, 0, 0, 1), (0, 0, 0))
        return self.decider.decide(self.time, time.monotonic(), **options)


@pytest.fixture
def bench():
    made = []

    def make(*answers, **options):
        made.append(Bench(Script(*answers, **options)))
        return made[-1]

    yield make
    for one in made:
        one.decider.stop()


@pytest.fixture
def arm_bench(bench):
    def make(action):
        here = bench(action, robot=ARM, slope=0.0)
        here.decider.options.deadline = 0.5
        return here

    return make


def actions(decision):
    """First joint's normalised actions of the decision's rows."""
    return (decision.targets[:, 0] - ROBOT.default_position[0]) / ROBOT.action_scale[0]


def test_plan_is_played_row_by_row_and_its_oldest_sample_counts(bench):
    here = bench(0.1)
    decision = here.tick()
    assert decision.mode == "plan" and decision.ended_by == "budget" and not decision.reason
    assert actions(decision) == pytest.approx([0.1, 0.2, 0.3])
    assert decision.stamp == pytest.approx(here.time - 0.003)


def test_late_plan_is_bridged_by_the_previous_one_then_by_the_prior(bench):
    here = bench(0.1, (0.2, 0.5), prior=0.7)
    assert here.tick().mode == "plan"
    second, third = here.tick(), here.tick()
    assert (second.mode, third.mode) == ("replay", "replay")
    assert "late" in second.reason and "earlier tick" in third.reason
    assert actions(second) == pytest.approx([0.2, 0.3])
    assert actions(third) == pytest.approx([0.3])
    fourth = here.tick()
    assert fourth.mode == "policy" and actions(fourth) == pytest.approx([0.7])


def test_plan_that_came_late_is_used_at_its_age(bench):
    here = bench(0.1, (0.03, 0.4), (0.1, 0.0))
    here.tick()
    here.tick()
    time.sleep(0.05)
    decision = here.tick()
    assert decision.mode == "replay" and actions(decision) == pytest.approx([0.5, 0.6])


def test_failing_planner_falls_back_to_plan_prior_hold(bench):
    here = bench(0.1, RuntimeError("broken"), prior=RuntimeError("broken too"))
    modes = [here.tick().mode for _ in range(4)]
    assert modes == ["plan", "replay", "replay", "hold"]
    assert "broken" in here.tick().reason


def test_non_finite_plan_holds_at_once(bench):
    from tdmpc2_core.agent import PlanError

    here = bench(0.1, PlanError("the action is not finite"), 0.2)
    here.tick()
    decision = here.tick()
    assert decision.mode == "hold" and decision.targets[-1] == pytest.approx(ROBOT.default_position)
    assert "not finite" in decision.reason
    assert here.tick().mode == "plan"


def test_without_fresh_sensors_the_plan_is_played_on_for_its_periods_and_then_the_robot_is_held(bench):
    here = bench(0.1, 0.1, 0.5)
    here.tick()
    here.time += 0.08  # the next tick is 100 ms after the samples, which may be 60 ms old
    decisions = [here.tick(fresh=False) for _ in range(ROBOT.safety.plan_on + 2)]
    played, held, silent = decisions[:-2], decisions[-2], decisions[-1]
    assert len(played) == 2 and {decision.mode for decision in played} == {"replay"}
    for decision in played:
        assert actions(decision) == pytest.approx([0.3])  # the plan's last row
    assert held.mode == "hold" and held.targets is not None and silent.targets is None
    assert all(len(decision.stale) == 2 and "joints: 0." in decision.stale[-1] for decision in decisions)


def test_a_gap_that_the_plan_bridges_keeps_the_history(bench):
    here = bench(0.1)
    here.tick()
    here.time += 0.08
    assert here.tick(fresh=False).mode == "replay"
    decision = here.tick()
    assert decision.mode == "plan" and not decision.stale
    assert here.decider._agent.firsts == [True, False]


def test_stale_sensors_hold_once_and_start_anew(bench):
    here = bench(0.5)
    here.tick()
    here.tick()
    here.time += 0.1
    for _ in range(ROBOT.safety.plan_on):
        here.tick(fresh=False)
    first, second = here.tick(fresh=False), here.tick(fresh=False)
    assert first.mode == "hold" and first.targets is not None and "old" in first.reason
    assert second.mode == "hold" and second.targets is None
    assert here.tick().mode == "plan"
    script = here.decider._agent
    assert script.firsts == [True, False, True]
    assert np.array_equal(script.observations[0], script.observations[2]), (
        "history or previous action survived"
    )


def test_never_received_gives_no_targets(bench):
    here = bench(0.5)
    decision = here.tick(fresh=False)
    assert decision.mode == "hold" and decision.targets is None and "never received" in decision.reason


def test_emergency_stop_holds_one_pose(bench):
    here = bench(0.0)
    here.tick()
    pose = ROBOT.default_position + 0.05
    for drift in (0.0, 0.1, 0.2):
        decision = here.tick(position=pose + drift, estop=True)
        assert decision.mode == "estop"
    assert decision.targets[-1] == pytest.approx(pose)
    assert here.tick().mode == "plan"


def test_a_robot_that_waits_for_a_zero_command_is_held_in_one_pose_and_does_not_sag(bench):
    here = bench(0.0)
    here.sensors.set_command(here.time, (0.5, 0.0, 0.0))
    here.tick(unheard="the supervisor stops the robot")
    pose = ROBOT.default_position + 0.05
    for drift in (0.0, 0.1, 0.2):  # as under gravity
        here.sensors.set_command(here.time, (0.5, 0.0, 0.0))
        decision = here.tick(position=pose + drift)
        assert decision.mode == "hold" and "zero first" in decision.reason
    assert decision.targets[-1] == pytest.approx(pose)


def test_a_controller_that_does_not_listen_is_sent_nothing_and_returned_to_from_the_measured_pose(bench):
    here = bench(1.0, 1.0, 1.0)
    here.tick()
    for _ in range(3):
        decision = here.tick(unheard="it is inactive")
        assert (decision.mode, decision.reason, decision.targets) == ("no_controller", "it is inactive", None)
    stopped = here.tick(unheard="the supervisor stops the robot", estop=True)
    assert stopped.mode == "estop" and stopped.targets is None, "two would command the robot"
    moved = ROBOT.default_position - 0.3
    decision = here.tick(position=moved)
    step = ROBOT.safety.max_target_rate * PERIOD
    assert decision.mode == "plan"
    assert np.abs(decision.targets[0] - moved).max() <= step + 1e-9


def test_every_row_keeps_rate_and_limits(bench):
    here = bench(1.0)
    decision = here.tick()
    step = ROBOT.safety.max_target_rate * PERIOD
    rows = np.vstack([ROBOT.default_position, decision.targets])
    assert np.abs(np.diff(rows, axis=0)).max() <= step + 1e-9
    assert (decision.targets <= ROBOT.upper).all() and (decision.targets >= ROBOT.lower).all()
    assert "rate" in decision.interventions or "effort" in decision.interventions


def test_same_samples_and_seed_give_the_same_targets():
    results = []
    for _ in range(2):
        here = Bench(random_agent())
        here.decider.options.deadline = 1.0
        here.decider._period = 1.0  # no plan is late, whatever else the machine does
        results.append(np.stack([here.tick().targets[0] for _ in range(5)]))
        here.decider.stop()
    assert np.array_equal(*results)


def test_without_a_goal_the_arm_holds_where_it_was_first_seen(arm_bench):
    here = arm_bench(0.5)
    for drift in (0.0, 0.01, 0.02):
        decision = here.tick(position=ARM.default_position + drift)
        assert (decision.mode, decision.reason) == ("hold", NO_GOAL)
        assert decision.targets[-1] == pytest.approx(ARM.default_position)


def test_rows_of_a_plan_continue_from_the_last_safe_targets(arm_bench):
    here = arm_bench(0.5)
    here.tick()
    here.sensors.set_command(here.time, GOAL)
    step = 0.5 * ARM.action_scale
    for count in (1, 2):
        decision = here.tick()
        assert decision.mode == "plan"
        wanted = ARM.default_position + np.outer(count + np.arange(3), step)
        np.testing.assert_allclose(decision.targets, wanted, atol=1e-6)


def test_targets_never_run_ahead_of_what_the_effort_limit_allows(arm_bench):
    here = arm_bench(1.0)
    here.tick()
    here.sensors.set_command(here.time, GOAL)
    for _ in range(20):
        decision = here.tick()  # the arm is stuck
    ahead = decision.targets[0] - ARM.default_position
    assert (ahead <= ARM.effort_limit / ARM.kp + 1e-9).all() and "effort" in decision.interventions


def test_emergency_stop_forgets_the_goal(arm_bench):
    here = arm_bench(0.5)
    here.sensors.set_command(100.0, GOAL)
    assert here.tick().mode == "plan"
    assert here.tick(estop=True).mode == "estop"
    assert here.tick().reason == NO_GOAL


class Turning(Bench):
    """A quadruped that is told to walk straight ahead and turns by 0.01 rad in every period."""

    def __init__(self, agent) -> None:
        super().__init__(agent)
        self.heading, self.speed = 0.0, 0.5

    def told(self, **options) -> float | None:
        """Yaw rate in the observation of the next tick, rad/s; None where it has none."""
        robot, self.time, self.heading = self.robot, self.time + PERIOD, self.heading + 0.01
        standing = robot.default_position, np.zeros(robot.num_joints)
        self.sensors.set_joints(self.time, robot.joint_names, *standing)
        self.sensors.set_imu(self.time, from_roll_pitch_yaw(0.0, 0.0, self.heading), (0.0, 0.0, 0.5))
        self.sensors.set_command(self.time, (self.speed, 0.0, 0.0))
        seen = self.decider.decide(self.time, time.monotonic(), **options).seen
        return None if seen is None else float(seen.told[2])


@pytest.fixture
def turning():
    here = Turning(Script(0.0))
    yield here
    here.decider.stop()


def test_the_policy_is_told_to_turn_back_to_the_heading_that_was_asked_for(turning):
    assert turning.told() == 0.0
    assert [turning.told() for _ in range(3)] == pytest.approx(
        [-0.01, -0.02, -0.03]
    )  # gain 1, as in its file
    turning.decider.options.heading_hold = 2.0
    assert turning.told() == pytest.approx(-0.08)
    turning.decider.options.heading_hold = 0.0
    assert turning.told() == 0.0


@pytest.mark.parametrize("stop", [{"estop": True}, {"halt": "no supervisor"}, {"unheard": "inactive"}])
def test_after_a_stop_the_heading_that_the_robot_then_has_is_kept(turning, stop):
    for _ in range(5):
        turning.told()
    turning.told(**stop)
    turning.speed = 0.0  # which it must see before it moves again
    turning.told()
    turning.speed = 0.5
    assert turning.told() == 0.0
    assert turning.told() == pytest.approx(-0.01)


def test_a_robot_that_is_blind_for_a_while_keeps_the_heading_that_it_then_has(turning):
    for _ in range(5):
        turning.told()
    turning.time += 0.2
    turning.decider.decide(turning.time, time.monotonic())
    assert turning.told() == 0.0
