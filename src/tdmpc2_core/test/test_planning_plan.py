"""`Plan` answers at any time."""

import numpy as np
import pytest

from tdmpc2_core.planning import Plan


def make(horizon: int = 3, dt: float = 0.02, created: float = 5.0, **changes: object) -> Plan:
    actions = np.arange(horizon * 2, dtype=np.float32).reshape(horizon, 2) / 10
    values = {
        "actions": actions,
        "std": np.ones_like(actions),
        "dt": dt,
        "created": created,
        "value": 1.0,
        "iterations": 2,
        "ended_by": "budget",
    }
    return Plan(**{**values, **changes})


@pytest.mark.parametrize(
    ("t", "row"),
    [
        (-np.inf, 0),
        (4.0, 0),
        (5.0, 0),
        (5.0199, 0),
        (5.02, 1),
        (5.0399, 1),
        (5.04, 2),
        (5.06, 2),
        (9e9, 2),
        (np.inf, 2),
    ],
)
def test_zero_order_hold_then_last_row(t: float, row: int) -> None:
    plan = make()
    assert plan.index(t) == row
    np.testing.assert_array_equal(plan.action(t), plan.actions[row])


def test_multiples_of_dt_start_their_row_for_any_clock_offset() -> None:
    for created in (0.0, 0.1, 1.7e9):
        plan = make(horizon=50, created=created)
        rows = [plan.index(created + k * plan.dt) for k in range(50)]
        assert rows == list(range(50))


def test_action_is_a_copy() -> None:
    plan = make()
    plan.action(5.0)[:] = 7.0
    assert plan.actions.max() < 1.0


def test_nan_time_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        make().action(float("nan"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"actions": np.full((3, 2), np.nan, np.float32)}, "non-finite"),
        ({"actions": np.zeros(3, np.float32)}, "shape"),
        ({"std": np.zeros((2, 2), np.float32)}, "std"),
        ({"dt": 0.0}, "dt"),
        ({"created": np.nan}, "created"),
        ({"ended_by": "tired"}, "ended_by"),
    ],
)
def test_a_plan_that_cannot_be_played_is_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make(**changes)
