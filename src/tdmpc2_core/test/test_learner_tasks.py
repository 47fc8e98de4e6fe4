"""Several tasks from one replay memory, and several learners that share their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planning_support import generator, small_model
from torch import nn

from tdmpc2_core.data.episodes import Episode, EpisodeRecorder, EpisodeStore
from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.learner import Learner, LearnerConfig
from tdmpc2_core.learning.replay import ReplayBuffer, concatenate

TASKS = {"task_dim": 6, "action_dims": (4, 2, 3)}


def episode(task: int, length: int = 30) -> Episode:
    """Constant observations and rewards that name the task."""
    recorder = EpisodeRecorder(np.full(9, task, np.float32), task)
    rng = np.random.default_rng(task)
    for _ in range(length):
        recorder.add(
            np.full(9, task, np.float32), rng.uniform(-1, 1, 4).astype(np.float32), float(task), False
        )
    return recorder.episode(truncated=True)


def test_tasks_go_from_the_store_through_the_replay_to_the_batch(tmp_path):
    store = EpisodeStore(tmp_path)
    for task in (2, 0, 1):
        store.append(episode(task))
    replay = ReplayBuffer(1, 200, 9, 4, several_tasks=True)
    for found, _ in store:
        replay.add_episode(0, found)
    recorded = episode(1)
    for t in range(len(recorded)):
        replay.add(0, recorded.observation[t], recorded.action[t], 1.0, False, task=1)
    replay.close(0, recorded.observation[-1])
    batch = replay.sample(64, 3)
    assert batch.task is not None and set(batch.task.tolist()) == {0, 1, 2}
    assert torch.equal(batch.obs[0, :, 0].long(), batch.task)
    assert torch.equal(batch.reward[0, :, 0].long(), batch.task)
    both = concatenate([batch, replay.sample(8, 3)])
    assert both.task is not None and both.task.shape == (72,)
    alone = ReplayBuffer(1, 200, 9, 4)
    alone.add_episode(0, recorded)
    assert alone.sample(4, 3).task is None


def test_every_task_of_a_batch_is_learned_with_its_own_discount():
    replay = ReplayBuffer(1, 200, 9, 4, generator=generator(5), several_tasks=True)
    for task in (0, 2):
        replay.add_episode(0, episode(task))
    model = small_model(**TASKS)
    learner = Learner(model, LearnerConfig(task_discounts=(0.5, 0.9, 0.99)), generator(1))
    batch = replay.sample(32, 3)
    draws = learner.draw(32)
    _, targets = learner.targets(batch, draws)
    short = Learner(model, LearnerConfig(task_discounts=(0.5, 0.9, 0.5)), generator(1))
    _, others = short.targets(batch, draws)
    changed = (targets - others).abs().amax((0, 2)) > 1e-6
    assert torch.equal(changed, batch.task == 2)
    before = model.task_embedding.detach().clone()
    for _ in range(3):
        learner.update(replay.sample(32, 3))
    moved = (model.task_embedding.detach() - before).abs().amax(1) > 0
    assert moved.tolist() == [True, False, True]


def test_images_are_kept_as_bytes_alone_or_beside_the_state(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (13, 9, 64, 64), dtype=np.uint8)
    whole = episode(1, 12)
    whole.pixels = images
    store = EpisodeStore(tmp_path)
    store.append(whole)
    ((again, _),) = list(store)
    assert np.array_equal(again.pixels, images) and again.task == 1
    both = ReplayBuffer(1, 40, 9, 4, images=(9, 64, 64))
    both.add_episode(0, again)
    batch = both.sample(5, 3)
    assert batch.obs.shape == (4, 5, 9) and batch.pixels.shape == (4, 5, 9, 64, 64)
    assert batch.pixels.dtype == torch.uint8
    alone = ReplayBuffer(1, 40, 0, 4, images=(9, 64, 64))
    nothing = np.zeros(0, np.float32)
    for t in range(12):
        alone.add(0, nothing, again.action[t], 0.0, False, pixels=images[t])
    alone.close(0, nothing, images[12])
    drawn = alone.sample(5, 3)
    assert drawn.pixels is None and drawn.obs.shape == (4, 5, 9, 64, 64)
    for window in range(5):
        first = next(t for t in range(12) if np.array_equal(images[t], drawn.obs[0, window].numpy()))
        steps = int(drawn.valid[:, window].sum())
        for k in range(steps + 1):
            assert np.array_equal(drawn.obs[k, window].numpy(), images[first + k])


def random_batch(count: int) -> Batch:
    g = generator(8)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    ones, zeros = torch.ones(3, count, 1), torch.zeros(3, count, 1)
    return Batch(normal(4, count, 9), normal(3, count, 4).tanh(), normal(3, count, 1), zeros, ones)


def half(batch: Batch, part: int) -> Batch:
    count = batch.size // 2
    own = slice(part * count, (part + 1) * count)
    return Batch(
        *(getattr(batch, name)[:, own] for name in ("obs", "action", "reward", "terminated", "valid"))
    )


@pytest.mark.parametrize("clip", [1e9, 0.05])
def test_gradients_can_be_averaged_between_backward_and_clipping(clip):
    """Two learners on halves of a batch that average their gradients are one learner on the whole batch."""
    whole = random_batch(16)
    config = LearnerConfig(grad_clip_norm=clip, n_step=1)
    single = Learner(small_model(), config, generator(1))
    draws = single.draw(16)
    single.update(whole, draws)
    waiting: list[list[torch.Tensor]] = []

    def collect(parameters: list[nn.Parameter]) -> None:
        waiting.append([p.grad.clone() for p in parameters if p.grad is not None])

    def average(parameters: list[nn.Parameter]) -> None:
        other = waiting.pop(0)
        mine = [p for p in parameters if p.grad is not None]
        for parameter, gradient in zip(mine, other, strict=True):
            parameter.grad.add_(gradient).div_(2.0)

    def of(part: int):
        own = slice(8 * part, 8 * (part + 1))
        return type(draws)(
            draws.td_noise[:, own], draws.td_heads, draws.policy_noise[:, own], draws.policy_heads
        )

    # the policy step of the first learner sees the world model from before the averaged step, so each step is
    # compared by itself: model parameters after the first, policy gradients with the values frozen
    first = Learner(small_model(), config, generator(1), reduce=collect)
    second = Learner(small_model(), config, generator(1), reduce=average)
    first.update(half(whole, 0), of(0))
    second.update(half(whole, 1), of(1))
    assert not waiting
    for name, parameter in second.model.named_parameters():
        if not name.startswith(("policy_head", "target_q_heads")):
            torch.testing.assert_close(
                parameter, dict(single.model.named_parameters())[name], rtol=1e-4, atol=1e-6
            )
