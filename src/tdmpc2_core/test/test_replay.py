"""Replay memory: windows are what was stored, nothing crosses an episode's end or the write head."""

import numpy as np
import pytest
import torch

from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.learning.replay import ReplayBuffer, concatenate

OBS, ACT = 3, 2


def numbered_episode(start: int, length: int, terminated: bool) -> Episode:
    """Rows carry their own global number, so that any mix-up shows."""
    rows = np.arange(start, start + length, dtype=np.float32)
    ends = np.zeros(length, dtype=bool)
    ends[-1] = terminated
    return Episode(
        observation=np.repeat(np.arange(start, start + length + 1, dtype=np.float32)[:, None], OBS, 1),
        action=np.repeat(rows[:, None], ACT, 1),
        reward=rows,
        terminated=ends,
        plan_mean=np.repeat(rows[:, None], ACT, 1) + 0.5,
        plan_std=np.ones((length, ACT), dtype=np.float32),
        has_plan=np.ones(length, dtype=bool),
        value=np.zeros(length, dtype=np.float32),
        truncated=not terminated,
    )


def check_windows(batch, window: int) -> None:
    first = batch.action[0, :, 0]
    for t in range(window):
        valid = batch.valid[t, :, 0] > 0
        assert torch.equal(batch.action[t, valid, 0], first[valid] + t)
        assert torch.equal(batch.obs[t, valid, 0], first[valid] + t)
        assert torch.equal(batch.obs[t + 1, valid, 0], first[valid] + t + 1)
        assert torch.equal(batch.reward[t, valid, 0], first[valid] + t)
        assert torch.equal(batch.plan_mean[t, valid, 0], first[valid] + t + 0.5)
        if t:
            assert (batch.valid[t] <= batch.valid[t - 1]).all()
    assert (batch.valid[0] == 1).all()


def test_windows_are_consecutive_and_stop_at_episode_ends():
    replay = ReplayBuffer(2, 400, OBS, ACT)
    for index in range(12):
        replay.add_episode(index % 2, numbered_episode(1000 * index, 20 + index, terminated=index % 3 == 0))
    batch = replay.sample(512, 5)
    check_windows(batch, 5)
    assert (batch.valid[4] == 0).any(), "some windows reach past an episode's end"
    ended = batch.terminated.sum(0) > 0
    for t in range(1, 5):
        after = (batch.terminated[:t].sum(0) > 0)[:, 0]
        assert (batch.valid[t, after] == 0).all(), "nothing is valid after a terminal step"
    assert ended.any()


def test_row_by_row_insertion_equals_whole_episodes():
    whole, single = ReplayBuffer(1, 100, OBS, ACT), ReplayBuffer(1, 100, OBS, ACT)
    for start in (0, 100, 200):
        episode = numbered_episode(start, 17, terminated=True)
        whole.add_episode(0, episode)
        for t in range(len(episode)):
            single.add(
                0,
                episode.observation[t],
                episode.action[t],
                float(episode.reward[t]),
                bool(episode.terminated[t]),
                episode.plan_mean[t],
                episode.plan_std[t],
            )
        single.close(0, episode.observation[-1])
    first, second = whole.sample(64, 4), single.sample(64, 4)
    for name in ("obs", "action", "reward", "terminated", "valid", "plan_mean", "plan_std", "has_plan"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def test_ring_wraps_without_mixing_old_and_new():
    replay = ReplayBuffer(1, 64, OBS, ACT)
    for index in range(30):
        replay.add_episode(0, numbered_episode(1000 * index, 13, terminated=True))
        if replay.can_sample(4):
            batch = replay.sample(128, 4)
            check_windows(batch, 4)
            assert batch.action[0].min() >= 1000 * max(0, index - 5), "only rows that still fit are drawn"


def test_decisions_are_drawn_uniformly_whatever_the_episode_length():
    replay = ReplayBuffer(1, 4000, OBS, ACT)
    lengths = [10, 990, 10, 990]
    for index, length in enumerate(lengths):
        replay.add_episode(0, numbered_episode(10_000 * index, length, terminated=True))
    counts = np.zeros(4)
    for _ in range(40):
        origin = replay.sample(256, 3).action[0, :, 0].numpy() // 10_000
        counts += np.bincount(origin.astype(int), minlength=4)
    share = counts / counts.sum()
    assert share[0] == pytest.approx(10 / 2000, abs=0.003)
    assert share[1] == pytest.approx(990 / 2000, abs=0.03)


def test_rows_without_a_plan_are_marked():
    replay = ReplayBuffer(1, 50, OBS, ACT)
    for t in range(30):
        plan = (np.zeros(ACT), np.ones(ACT)) if t % 2 else (None, None)
        replay.add(0, np.full(OBS, t, np.float32), np.full(ACT, t), float(t), False, *plan)
    batch = replay.sample(64, 2)
    assert torch.equal(batch.has_plan, batch.action[..., :1] % 2)


def test_same_generator_seed_gives_the_same_batch_and_an_empty_buffer_says_so():
    buffers = [ReplayBuffer(1, 100, OBS, ACT, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    with pytest.raises(ValueError, match="holds 0 rows"):
        buffers[0].sample(4, 3)
    for buffer in buffers:
        buffer.add_episode(0, numbered_episode(0, 50, terminated=True))
    assert torch.equal(buffers[0].sample(32, 3).obs, buffers[1].sample(32, 3).obs)


def test_concatenate_joins_along_the_batch():
    replay = ReplayBuffer(1, 100, OBS, ACT)
    replay.add_episode(0, numbered_episode(0, 50, terminated=True))
    joined = concatenate([replay.sample(8, 3), replay.sample(24, 3)])
    assert joined.size == 32
    check_windows(joined, 3)


def stored(sampling: str) -> ReplayBuffer:
    """Episodes of 5, 45 and 2 decisions; the observation's first entry tells which."""
    replay = ReplayBuffer(1, 100, OBS, ACT, generator=torch.Generator().manual_seed(3), sampling=sampling)
    for number, length in enumerate((5, 45, 2)):
        observation = np.full(OBS, number, dtype=np.float32)
        for _ in range(length):
            replay.add(0, observation, np.zeros(ACT, dtype=np.float32), 0.0, False)
        replay.close(0, observation)
    return replay


def test_weight_of_short_and_long_episodes() -> None:
    shares = {}
    for sampling in ("decisions", "episodes"):
        batch = stored(sampling).sample(4000, 3)
        shares[sampling] = [float((batch.obs[0, :, 0] == number).float().mean()) for number in range(3)]
        if sampling == "episodes":
            assert bool((batch.valid == 1).all())  # whole windows alone
    assert np.allclose(
        shares["decisions"][:2], [5 / 51, 45 / 51], atol=0.02
    )  # the last start lacks rows behind it
    assert np.allclose(shares["episodes"], [0.5, 0.5, 0.0], atol=0.03)


def test_episodes_that_were_overwritten_are_not_drawn() -> None:
    replay = ReplayBuffer(1, 20, OBS, ACT, sampling="episodes")
    assert not replay.can_sample(3)
    for number in range(7):
        observation = np.full(OBS, number, dtype=np.float32)
        for _ in range(5):
            replay.add(0, observation, np.zeros(ACT, dtype=np.float32), 0.0, False)
        assert number or not replay.can_sample(3)  # an episode in progress does not count
        replay.close(0, observation)
    batch = replay.sample(500, 3)
    assert set(batch.obs[..., 0].flatten().tolist()) == {4.0, 5.0, 6.0}
    assert bool((batch.obs[0, :, 0] == batch.obs[-1, :, 0]).all())
