"""The control schedule with a clock of the test's own."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2_core.control.ticker import Ticker

PERIOD = 0.02


class Time:
    """Advances by a step at every look; calls what is due."""

    def __init__(self, arrivals=(), step=0.0001) -> None:
        self.now, self.step, self.arrivals = 0.0, step, list(arrivals)
        self.ticker = None

    def __call__(self) -> float:
        return self.now

    def advance(self) -> None:
        self.now += self.step
        while self.arrivals and self.arrivals[0] <= self.now:
            self.arrivals.pop(0)
            self.ticker.arrived()


def ticks(clock, until, work=0.0, period=PERIOD):
    """Tick times up to `until` s; every decision takes `work` s."""
    clock.ticker = ticker = Ticker(period, clock)
    ticker._condition.wait = lambda timeout=None: clock.advance()  # time passes instead of sleep
    found = []
    while clock.now < until:
        tick = ticker.wait()
        found.append(tick)
        end = clock.now + (work(len(found)) if callable(work) else work)
        while clock.now < end:
            clock.advance()
    return found


def every(interval, until, jitter=0.0, start=0.0):
    count = int((until - start) / interval) + 50
    noise = np.random.default_rng(0).uniform(0.0, jitter, count) if jitter else np.zeros(count)
    return sorted(start + interval * np.arange(1, count + 1) + noise)


@pytest.mark.parametrize("interval", [0.004, 0.005, 0.01, 0.02])
def test_one_tick_per_period_right_after_a_sample(interval):
    arrivals = every(interval, 20.0, jitter=0.001)
    found = ticks(Time(arrivals), 20.0, work=0.008)
    times = np.array([t.time for t in found])
    assert sum(t.missed for t in found) == 0
    assert (times[-1] - times[0]) / (len(times) - 1) == pytest.approx(PERIOD, rel=1e-3)
    gaps = np.array([t - max(a for a in arrivals if a <= t + 1e-9) for t in times[20:200]])
    assert np.quantile(gaps, 0.95) < 0.001


def test_follows_a_sensor_clock_that_runs_a_little_fast():
    found = ticks(Time(every(0.01 * 0.999, 30.0)), 30.0, work=0.008)
    times = np.array([t.time for t in found])
    assert np.diff(times)[5:].max() < 1.3 * PERIOD and np.diff(times)[5:].min() > 0.7 * PERIOD


def test_rate_that_is_no_multiple_keeps_the_mean_rate():
    found = ticks(Time(every(1 / 60, 20.0)), 20.0, work=0.008)
    times = np.array([t.time for t in found])
    assert len(times) / 20.0 == pytest.approx(50.0, rel=0.03)


def test_ticks_by_the_clock_when_samples_stop():
    clock = Time(every(0.01, 1.0, start=0.0)[:100])
    found = ticks(clock, 3.0)
    assert len(found) == pytest.approx(150, abs=3)


def test_no_tick_before_the_first_sample():
    clock = Time([1.0])
    assert ticks(clock, 1.01)[0].time >= 1.0


def test_missed_periods_are_counted_and_not_made_up_for():
    slow = ticks(Time(every(0.01, 2.0)), 2.0, work=lambda n: 0.07 if n == 20 else 0.005)
    missed = [t.missed for t in slow]
    assert missed[20] in (2, 3) and sum(missed) == missed[20]
    assert np.diff([t.time for t in slow])[21:].min() > 0.5 * PERIOD


def test_clock_that_jumps_back_starts_anew():
    clock = Time(every(0.01, 1.0))
    clock.ticker = ticker = Ticker(PERIOD, clock)
    ticker._condition.wait = lambda timeout=None: clock.advance()
    for _ in range(10):
        ticker.wait()
    clock.now, clock.arrivals = 0.0, every(0.01, 1.0)
    assert ticker.wait().time < 0.05
    assert ticker.wait().time < 0.08


def test_stop_ends_waiting():
    ticker = Ticker(PERIOD, lambda: 0.0)
    ticker.stop()
    assert ticker.wait() is None
