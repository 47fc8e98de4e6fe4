"""The safety filter: what must hold for every output, and hand-computed interventions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from small_robot import small_robot

from tdmpc2_core.robots import SafetyFilter

ROBOT = small_robot()  # rate 10 rad/s, 50 Hz; reach = effort / kp: hip 0.5 rad, knee 0.8 rad
REST = np.array([0.1, -1.5])
ANY = st.floats(allow_nan=True, allow_infinity=True)
PAIR = st.lists(ANY, min_size=2, max_size=2)


def at_rest() -> SafetyFilter:
    safety = SafetyFilter(ROBOT)
    safety.reset(REST)
    return safety


def test_a_safe_target_passes_unchanged():
    result = at_rest().filter([0.2, -1.4], REST, 0.02)
    assert_array_equal(result.targets, [0.2, -1.4])
    assert result.interventions == ()


def test_not_finite_keeps_the_last_safe_target():
    safety = at_rest()
    safety.filter([0.2, -1.4], REST, 0.02)
    result = safety.filter([math.nan, -1.35], REST, 0.02)
    assert_array_equal(result.targets, [0.2, -1.35])
    assert result.interventions == ("finite",)


def test_rate_limit():
    result = at_rest().filter([0.9, -1.5], REST, 0.02)
    assert_allclose(result.targets, [0.1 + 10.0 * 0.02, -1.5])
    assert result.interventions == ("rate",)


def test_position_comes_before_rate():
    safety = SafetyFilter(ROBOT)
    safety.reset([0.95, -1.5])
    result = safety.filter([1.4, -1.5], [0.95, -1.5], 0.02)
    assert_allclose(result.targets, [1.0, -1.5])
    assert result.interventions == ("position",)


def test_effort_limit_pulls_the_target_to_the_measured_position():
    """At target 0.3 and position -0.4 the PD would ask 10 * 0.7 = 7 N m of a 5 N m joint."""
    result = at_rest().filter([0.3, -1.5], [-0.4, -1.5], 0.02)
    assert_allclose(result.targets, [0.1, -1.5])
    assert result.interventions == ("effort",)


def test_margin_and_effort_fraction():
    safety = SafetyFilter(small_robot(safety={"position_margin": 0.2, "max_effort_fraction": 0.5}))
    safety.reset([0.7, -1.5])
    assert_allclose(safety.filter([0.95, -1.5], [0.7, -1.5], 0.02).targets, [0.8, -1.5])
    assert_allclose(safety.filter([0.8, -1.5], [0.5, -1.5], 0.02).targets, [0.75, -1.5])


@pytest.mark.parametrize("dt", [0.0, -1.0, math.nan, math.inf, None])
def test_an_unusable_dt_allows_no_change(dt):
    assert_array_equal(at_rest().filter([0.2, -1.4], REST, dt).targets, REST)


def test_a_pause_does_not_license_a_jump():
    assert_allclose(at_rest().filter([0.9, -1.5], [0.6, -1.5], 5.0).targets, [0.1 + 10.0 * 2 * 0.02, -1.5])


@pytest.mark.parametrize("targets", [[0.2], np.zeros((3, 2)), "stop", None, object()])
def test_wrong_shapes_and_types_hold_position(targets):
    result = at_rest().filter(targets, REST, 0.02)
    assert_array_equal(result.targets, REST)
    assert result.interventions == ("finite",)


def test_unknown_position_skips_effort_only():
    result = at_rest().filter([0.3, -1.4], [math.nan, math.nan], 0.02)
    assert_allclose(result.targets, [0.3, -1.4])


def test_reset_outside_limits_or_without_measurement():
    safety = SafetyFilter(ROBOT)
    safety.reset([5.0, math.nan])
    assert_array_equal(safety.filter([math.nan, math.nan], REST, 0.0).targets[1], -1.5)
    safety.reset([5.0, -1.5])
    assert safety.filter([1.0, -1.5], [1.0, -1.5], 0.0).targets[0] == 1.0


def test_first_call_without_reset_starts_at_the_measured_position():
    assert_allclose(SafetyFilter(ROBOT).filter([0.9, -1.5], [0.5, -1.4], 0.02).targets, [0.7, -1.5])


def test_results_and_inputs_are_not_shared():
    safety, wanted = at_rest(), np.array([0.2, -1.4])
    first = safety.filter(wanted, REST, 0.02)
    first.targets[:] = 99.0
    assert_array_equal(wanted, [0.2, -1.4])
    assert_array_equal(safety.filter([math.nan] * 2, REST, 0.02).targets, [0.2, -1.4])


def test_counts_and_explanation():
    safety = at_rest()
    result = safety.filter([0.9, -1.5], REST, 0.02)
    assert safety.counts == {"finite": 0, "position": 0, "rate": 1, "effort": 0}
    assert safety.explain([0.9, -1.5], result) == "rate: hip asked 0.900, sent 0.300 rad"
    assert safety.explain(REST, safety.filter([0.3, -1.5], REST, 0.02)) == ""


@settings(max_examples=300, deadline=None)
@given(PAIR, st.lists(st.tuples(PAIR, PAIR, ANY), min_size=1, max_size=5))
def test_limits_and_rate_hold_for_any_input(start, calls):
    safety = SafetyFilter(ROBOT)
    safety.reset(start)
    last = safety.filter([math.nan] * 2, start, 0.0).targets
    for targets, position, dt in calls:
        sent = safety.filter(targets, position, dt).targets
        usable = dt if math.isfinite(dt) and dt > 0 else 0.0
        assert np.isfinite(sent).all()
        assert (sent >= ROBOT.lower).all() and (sent <= ROBOT.upper).all()
        assert (np.abs(sent - last) <= 10.0 * usable + 1e-12).all()
        last = sent


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=2, max_size=2), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_effort_holds_when_the_joint_follows(targets, hip, knee):
    """Within reach of the last target, the effort limit never conflicts with the rate limit."""
    position = REST + [hip, knee]
    sent = at_rest().filter(targets, position, 0.02).targets
    assert (ROBOT.kp * np.abs(sent - position) <= ROBOT.effort_limit + 1e-9).all()
