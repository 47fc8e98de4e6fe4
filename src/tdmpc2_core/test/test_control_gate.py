"""The calibrated gate: its statistic against its formula, its false alarms, its file."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from planning_support import small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.bundle import weights_digest
from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration
from tdmpc2_core.control import gate_fit
from tdmpc2_core.control.gate import TINY, TrustGate
from tdmpc2_core.control.gate_fit import Fitter, Run, calibrate_trust, conformal
from tdmpc2_core.control.trust import TrustMonitor
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

ROBOT = Embodiment.load("quadruped")
SECONDS = 2.0  # of a stretch, so that a test needs few


def good_runs(count: int, seed: int = 0, bias: float = 0.0) -> list[Run]:
    """A robot whose observations follow its actions and themselves, with noise; `bias` changes it."""
    random, length = np.random.default_rng(seed), round(SECONDS * ROBOT.control_rate)
    wide, narrow = ROBOT.observation_dim, ROBOT.action_dim
    drive = np.random.default_rng(99).normal(size=(narrow, wide)) * 0.3
    runs = []
    for _ in range(count):
        observation = np.zeros((length, wide), np.float32)
        action = random.uniform(-1, 1, (length, narrow)).astype(np.float32)
        for t in range(1, length):
            noise = random.normal(size=wide)
            observation[t] = 0.8 * observation[t - 1] + action[t - 1] @ drive + 0.2 * noise + bias
        runs.append(Run(observation, action))
    return runs


@pytest.fixture(scope="module")
def agent() -> Agent:
    model = small_model(ROBOT.observation_dim, ROBOT.action_dim)
    return Agent(model, "tiny", embodiment=ROBOT)


@pytest.fixture(scope="module")
def calibrated(agent: Agent) -> TrustCalibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate_fit, "BLOCK_SECONDS", SECONDS)
        return calibrate_trust(agent, good_runs(60), 100.0, weights_digest(agent.model.state_dict()))


def follow(agent: Agent, calibration: TrustCalibration, run: Run) -> tuple[list[float], list[bool]]:
    """Scores and verdicts along a run, as the planner's monitor sees it."""
    monitor = TrustMonitor(agent.model, calibration, ROBOT.control_period)
    assert monitor.gate is not None
    scores, trusted, previous = [], [], None
    for observation, action in zip(*run, strict=True):
        monitor.assess(observation, action[None], previous)
        scores.append(monitor.gate.score)
        trusted.append(monitor.trusted)
        previous = action
    return scores, trusted


def test_the_live_score_is_that_of_the_calibration(agent, calibrated):
    (run,) = good_runs(1, seed=5)
    scores, _ = follow(agent, calibrated, run)
    fitted = np.array(list(Fitter(agent).scores([run], calibrated)))[:, 0] / calibrated.threshold[0]
    assert scores[gate_fit.HORIZON :] == pytest.approx(fitted, rel=2e-2)


def test_good_runs_are_trusted_and_a_changed_robot_is_not(agent, calibrated):
    assert all(all(follow(agent, calibrated, run)[1]) for run in good_runs(3, seed=6))
    scores, trusted = follow(agent, calibrated, good_runs(1, seed=7, bias=0.3)[0])
    assert not trusted[-1] and scores[-1] > 1.0


def test_the_score_is_the_whitened_mean_square_of_smoothed_residuals(calibrated):
    gate, random = TrustGate(calibrated, 16, 0.02), np.random.default_rng(0)
    rows = [[random.normal(size=n).astype(np.float32) for n in (167, 16, 16, 16)] for _ in range(30)]
    for observation, *latents in rows:
        gate.add(observation, 0.1, *latents)
    smooth = [np.zeros(calibrated.residuals.shape[1]), np.ones(calibrated.residuals.shape[1])]
    smooth = [[part.copy() for part in smooth] for _ in calibrated.keep]
    newest = np.concatenate([calibrated.measured, calibrated.known])
    for t in range(gate.horizon, 30):
        observation, *latents = rows[t]
        parts = [[1.0, np.log(0.1 + 1e-4)], observation[newest], rows[t - 1][0][newest], *latents]
        residual = np.clip(np.concatenate(parts) @ calibrated.residuals.astype(float), -3, 3)
        for keep, part in zip(calibrated.keep.astype(float), smooth, strict=True):
            part[0] = keep * part[0] + (1 - keep) * residual
            part[1] = keep * part[1] + (1 - keep) * residual**2
    found = []
    for k, (mean, square) in enumerate(smooth):
        features = np.concatenate([mean, np.log(square + TINY)]) - calibrated.centre[k]
        found.append(np.square(features @ calibrated.whiten[k]).mean() / calibrated.unit[k])
    assert gate.score == pytest.approx(max(found) / calibrated.threshold[0], rel=1e-3)


def test_trust_comes_back_after_a_while_below_the_threshold_and_not_before(calibrated):
    gate = TrustGate(calibrated, 16, 0.02)
    for score in (1.1, 0.9, *[0.5] * 99):
        gate.score = score
        gate._switch()
        assert not gate.open
    gate.score = 0.9  # in between: counting begins anew
    gate._switch()
    for _ in range(99):
        gate.score = 0.5
        gate._switch()
    assert not gate.open
    gate._switch()
    assert gate.open


def test_a_decision_takes_little_time_and_keeps_no_memory(calibrated):
    gate = TrustGate(calibrated, 16, 0.02)
    observation, latent = np.ones(167, np.float32), np.ones(16, np.float32)
    times = []
    for _ in range(300):
        started = time.thread_time()
        gate.add(observation, 0.1, latent, latent, latent)
        times.append(time.thread_time() - started)
    assert np.median(times) < 2e-4
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(50):
        gate.add(observation, 0.1, latent, latent, latent)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000


def test_conformal_thresholds_hold_their_rate_on_new_runs():
    random, chance = np.random.default_rng(0), 0.05
    exceeded = [random.exponential() > conformal(random.exponential(size=59), chance) for _ in range(4000)]
    assert 0.03 < np.mean(exceeded) <= 0.055


def test_too_few_good_runs_are_a_mistake_that_names_how_many_it_takes(agent):
    with pytest.raises(UserError, match=r"give 1.24 h of good runs"):
        calibrate_trust(agent, [])


def test_a_bundle_keeps_its_calibration_and_only_for_its_weights(agent, calibrated, tmp_path):
    agent.trust = calibrated
    agent.save(tmp_path / "same")
    loaded = Agent.load(tmp_path / "same")
    assert loaded.trust is not None
    for name, value in vars(calibrated).items():
        assert np.array_equal(getattr(loaded.trust, name), value)
    with torch.no_grad():
        next(loaded.model.parameters()).add_(0.01)
    loaded.save(tmp_path / "other")
    assert Agent.load(tmp_path / "other").trust is None


@pytest.mark.parametrize("name", ["unit", "threshold", "centre"])
def test_a_calibration_that_does_not_fit_itself_is_refused(calibrated, name):
    broken = replace(calibrated, **{name: np.full(7, np.nan, np.float32)})
    with pytest.raises(UserError, match="calibrate again"):
        TrustCalibration.from_bytes(broken.to_bytes(), "here")
