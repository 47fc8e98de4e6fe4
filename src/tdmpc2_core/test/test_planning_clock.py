"""The iteration clock: predictions from earlier iterations, on a clock that the test moves."""

import pytest
import torch

from tdmpc2_core.planning import clock as clock_module
from tdmpc2_core.planning.clock import IterationClock

PENDING = torch.zeros(3, 1, 4)


class Time:
    """`time.monotonic` of the test's own."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(clock_module, "time", made)
    return made


def run(clock: IterationClock, time: Time, limit: float | None, seconds: list[float]) -> int:
    """Iterations of the given lengths until the clock says stop; how many were done."""
    clock.start(None if limit is None else time.now + limit, 1)
    done = 0
    for length in seconds:
        if not clock.fits(PENDING):
            break
        time.now += length
        done += 1
    clock.end(PENDING)
    return done


def test_no_iteration_starts_that_would_end_late(time: Time) -> None:
    clock = IterationClock()
    assert run(clock, time, None, [0.004] * 3) == 3 and clock.expected == pytest.approx(0.0048)
    began = time.now
    assert run(clock, time, 0.0134, [0.004] * 9) == 3
    assert time.now - began <= 0.0134
    assert run(clock, time, 0.0130, [0.004] * 9) == 2, "the way back to the caller needs its time too"


def test_without_experience_one_iteration_is_tried(time: Time) -> None:
    clock = IterationClock()
    assert run(clock, time, 0.001, [0.004, 0.004]) == 1
    for _ in range(9):
        assert run(clock, time, 0.001, [0.004, 0.004]) == 0, "now it is known not to fit"


def test_a_passed_deadline_starts_nothing(time: Time) -> None:
    clock = IterationClock()
    assert run(clock, time, 0.0, [0.004]) == 0
    assert run(clock, time, -5.0, [0.004]) == 0
    assert run(clock, time, float("inf"), [0.004] * 4) == 4


def test_a_single_interruption_is_no_trend_but_a_slower_machine_is(time: Time) -> None:
    clock = IterationClock()
    run(clock, time, None, [0.002] * 10 + [0.060])
    assert clock.expected == pytest.approx(0.0024)
    run(clock, time, None, [0.005, 0.005])
    assert clock.expected == pytest.approx(0.006)


def test_planning_resumes_after_a_slow_spell(time: Time) -> None:
    clock = IterationClock()
    run(clock, time, None, [0.050] * 16)
    tries = [run(clock, time, 0.012, [0.002] * 3) for _ in range(40)]
    assert tries[:10] == [0] * 10 and tries[-1] == 3


def test_iterations_that_just_do_not_fit_are_seldom_tried(time: Time) -> None:
    clock, tries, late = IterationClock(), 0, 0
    run(clock, time, None, [0.013] * 16)
    for _ in range(1000):
        end = time.now + 0.012
        tries += run(clock, time, 0.012, [0.013])
        late += time.now > end
    assert 1 <= tries == late < 10


def test_another_batch_size_is_learnt_anew(time: Time) -> None:
    clock = IterationClock()
    run(clock, time, None, [0.050] * 4)
    clock.start(time.now + 0.012, kind=2)
    assert clock.expected == 0.0 and clock.fits(PENDING)
