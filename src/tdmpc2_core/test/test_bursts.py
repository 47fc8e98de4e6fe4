"""Bursts of action noise: lengths, strengths and shares are those that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2_core.config import from_mapping
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.bursts import BurstConfig, BurstNoise
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment


def lengths(active: np.ndarray) -> tuple[list[int], list[int]]:
    """Of the whole bursts and the whole pauses in (T,) bool, the first pause included."""
    edges = [0, *(np.flatnonzero(np.diff(active.astype(int))) + 1).tolist()]
    runs = [(bool(active[a]), b - a) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return [n for on, n in runs if on], [n for on, n in runs if not on]


def test_bursts_and_pauses_have_the_lengths_and_strengths_of_the_config():
    config = BurstConfig(std=(0.1, 0.4), on=(2, 9), off=(5, 20), clean_share=0.25)
    noise, count = BurstNoise(400, config, seed=1), 400
    active, sent = [], []
    for _ in range(600):
        active.append(noise.active)
        sent.append(noise.disturb(np.zeros((count, 3))))
    active, sent = np.array(active), np.array(sent)
    clean = noise.std == 0.0
    assert 0.17 < clean.mean() < 0.33 and not active[:, clean].any()
    np.testing.assert_array_equal(sent.any(axis=2), active)
    on, off = zip(*(lengths(active[:, row]) for row in np.flatnonzero(~clean)), strict=True)
    on, off = np.concatenate(on), np.concatenate(off)
    assert set(on) == set(range(2, 10)) and set(off) == set(range(5, 21))
    assert on.mean() == pytest.approx(5.5, abs=0.1) and off.mean() == pytest.approx(12.5, abs=0.2)
    assert noise.std[~clean].min() < 0.13 and noise.std[~clean].max() > 0.37
    for row in np.flatnonzero(~clean)[:20]:
        assert sent[active[:, row], row].std() == pytest.approx(noise.std[row], rel=0.15)


@pytest.mark.parametrize("kept", [0.0, 0.9])
def test_noise_of_a_burst_is_held_as_much_as_asked_for(kept: float):
    config = BurstConfig(std=(0.1, 0.1), on=(60, 60), off=(1, 1), clean_share=0.0, correlation=(kept, kept))
    noise = BurstNoise(200, config, seed=3)
    noise.disturb(np.zeros((200, 4)))
    sent = np.array([noise.disturb(np.zeros((200, 4))) for _ in range(60)])
    np.testing.assert_allclose(sent.std(axis=(1, 2)), 0.1, rtol=0.12)  # from the first decision on
    following = (sent[1:] * sent[:-1]).mean() / (sent * sent).mean()
    assert following == pytest.approx(kept, abs=0.03)


def test_an_episode_begins_with_a_pause_and_another_strength():
    noise = BurstNoise(50, BurstConfig(on=(500, 500), off=(10, 10), clean_share=0.0))
    action = np.full((50, 2), 0.5)
    for _ in range(10):
        np.testing.assert_array_equal(noise.disturb(action), action)
    assert noise.active.all() and (noise.disturb(action) != action).all(axis=1).sum() > 45
    before, began = noise.std, np.arange(50) % 2 == 0
    noise.restart(began)
    np.testing.assert_array_equal(noise.active, ~began)
    np.testing.assert_array_equal(noise.std == before, ~began)
    assert np.abs(noise.disturb(action)).max() <= 1.0


def test_same_seed_or_state_same_noise():
    one, other, action = BurstNoise(8, seed=5), BurstNoise(8, seed=5), np.zeros((8, 4))
    for _ in range(300):
        np.testing.assert_array_equal(one.disturb(action), other.disturb(action))
    state = one.state()
    first = [one.disturb(action) for _ in range(300)]
    other.restore(state)
    np.testing.assert_array_equal(first, [other.disturb(action) for _ in range(300)])
    assert np.any(first)


def test_noise_of_a_batch_moves_robots_and_starts_anew_with_their_episodes():
    embodiment = Embodiment.load("quadruped")
    batch, undisturbed = BatchEnv(embodiment, 6), BatchEnv(embodiment, 6)
    noise = BurstNoise(6, BurstConfig(std=(1.0, 1.0), on=(40, 40), off=(3, 3), clean_share=0.0))
    batch.reset()
    undisturbed.reset()
    fell, fell_undisturbed = np.zeros(6, dtype=bool), np.zeros(6, dtype=bool)
    for _ in range(150):
        step = batch.step(noise.disturb(np.zeros((6, 12))))
        ended = step.terminated | step.truncated
        noise.restart(ended)
        fell_undisturbed |= undisturbed.step(np.zeros((6, 12))).terminated
        assert not noise.active[ended].any()
        fell |= ended
    assert fell.any() and not fell_undisturbed.any()


def test_a_range_upside_down_is_refused():
    with pytest.raises(UserError, match=r"on must be \[lowest, highest\], got \[9, 2\]"):
        from_mapping(BurstConfig, {"on": [9, 2]}, "train.yaml")
