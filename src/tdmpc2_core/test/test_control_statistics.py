"""What a control loop counts of itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tdmpc2_core.control.statistics import Statistics, StopCause, percentiles, resident_megabytes


def test_summary_looks_back_on_the_newest_commands():
    statistics = Statistics()
    assert statistics.summary()["rate_hz"] == 0.0 and math.isnan(statistics.summary()["latency_ms"]["p50"])
    for k in range(100):
        statistics.command(time=5.0 + 0.02 * k, latency=0.001 * (k + 1), planning=0.5)
    newest = statistics.last(10)
    np.testing.assert_allclose(newest["latency"], 0.001 * np.arange(91, 101))
    summary = statistics.summary(10)
    assert summary["rate_hz"] == pytest.approx(50.0)
    assert summary["latency_ms"] == pytest.approx({"p50": 95.5, "p99": 99.91, "max": 100.0})
    assert (summary["commands"], summary["planning_ms"]["max"]) == (100, 500.0)
    statistics.clear()
    assert statistics.commands == len(statistics.last()) == 0


def test_percentiles_leave_out_what_is_not_finite():
    assert percentiles(np.array([math.nan, 0.002, math.inf]))["max"] == pytest.approx(2.0)


def test_first_cause_counts_until_it_is_cleared():
    cause = StopCause()
    assert cause.record("fault") and not cause.record("signal") and cause.text == "fault"
    cause.clear()
    assert cause.record("signal") and cause.text == "signal"


def test_memory_is_that_of_this_process():
    assert 5.0 < resident_megabytes() < 1e5
