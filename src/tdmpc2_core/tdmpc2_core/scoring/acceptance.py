"""Whether a fine-tuned model is better than its parent beyond the noise of the data that judge it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tdmpc2_core.scoring.branch_ranking import Estimate, estimate
from tdmpc2_core.scoring.paired import Gain
from tdmpc2_core.scoring.prediction import PolicyShift, Prediction


@dataclass(frozen=True)
class Verdict:
    """What was found, and why it does not suffice where it does not.

    Attributes:
        gain: share of the open-loop error that went away, with its interval over held-out stretches.
        reward: change of the reward error, reward units; None where no reward is known.
        shift: how far actions moved.
        closed_loop: what the new model gains in the simulator given; None without one.
        reasons: against it, one sentence each; none: it is accepted.
    """

    gain: Estimate
    reward: Estimate | None
    shift: PolicyShift
    closed_loop: Gain | None
    reasons: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    @property
    def rank(self) -> tuple[bool, float]:
        """Of two verdicts the better one is higher."""
        return self.accepted, self.gain.mean if self.closed_loop is None else self.closed_loop.reward.mean


def judge(
    before: Prediction,
    after: Prediction,
    shift: PolicyShift,
    max_shift: float,
    closed_loop: Gain | None = None,
    seed: int = 0,
) -> Verdict:
    """Compare the same stretches under both models, pair by pair (95 % bootstrap intervals).

    Without a closed loop the open-loop error must fall. With one it alone decides, as it is what counts; the
    errors must then not grow.
    """
    old = before.by_stretch
    gain = estimate((old - after.by_stretch) / old.mean(), seed)
    reward: Estimate | None = estimate(after.rewards_by_stretch - before.rewards_by_stretch, seed)
    if reward is not None and not np.isfinite(reward.mean):
        reward = None
    reasons = []
    if closed_loop is not None:
        reasons += _closed_loop(closed_loop)
        if gain.high < 0.0:
            reasons.append(f"the open-loop error on held-out data grew: {_percent(gain)} of it went away")
    elif not gain.low > 0.0:
        reasons.append(f"the open-loop error on held-out data did not fall beyond chance: {_percent(gain)}")
    if reward is not None and reward.low > 0.0:
        reasons.append(f"rewards on held-out data are foretold worse, by {reward} per decision")
    moved = max(shift.prior, shift.planner)
    if closed_loop is None and not moved <= max_shift:
        reasons.append(
            f"actions move by {moved:.2f} on average, more than max_shift={max_shift:g}; try them in a "
            "simulator first (--sim-robot)"
        )
    return Verdict(gain, reward, shift, closed_loop, tuple(reasons))


def _closed_loop(found: Gain) -> list[str]:
    reasons = []
    if not found.reward.low > 0.0:
        reasons.append(f"the reward in the simulator did not rise beyond chance: {found.reward} per decision")
    if found.error.low > 0.0:
        reasons.append(f"it follows commands worse in the simulator, by {found.error}")
    if found.falls[0] > found.falls[1]:
        reasons.append(f"it fell {found.falls[0]} times in the simulator, the parent {found.falls[1]} times")
    return reasons


def _percent(found: Estimate) -> str:
    return f"{100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"
