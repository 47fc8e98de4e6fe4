"""`UpdateGraph`: one update as fixed operations on fixed buffers; on CUDA one captured graph."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from tdmpc2_core.capture import Repeat, best_repeat
from tdmpc2_core.learning.batch import Batch, UpdateDraws
from tdmpc2_core.learning.learner import Learner


class UpdateGraph:
    """`Learner.update` for batches of one shape, each time through the same buffers.

    Normal numbers and dropout are drawn inside the graph; the value heads are drawn on the host.

    Args:
        learner: is trained; its optimisers keep their step counts on the device.
        example: a batch with the shapes of all others; it is not trained on.
        repeat: how the operations are repeated; None: what the device is best at.

    Raises:
        ValueError: the model has several tasks or pixels.
    """

    def __init__(self, learner: Learner, example: Batch, repeat: Repeat | None = None) -> None:
        model = learner.model.config
        if model.num_tasks or model.obs_kind != "state":
            raise ValueError("an update graph needs a single task and state observations")
        self.learner = learner
        example = example.to(learner.device).prepare(learner.config.window)
        self.batch = Batch(**{name: value.clone() for name, value in _tensors(example).items()})
        self.draws = learner.draw(self.batch.size)
        self._host = torch.Generator().manual_seed(learner.generator.initial_seed())
        self._metrics: dict[str, Tensor] = {}
        self._repeat = best_repeat(learner.device) if repeat is None else repeat
        updates = learner.updates
        self._repeat.prepare(self._body, [learner.generator], self._state)
        learner.updates = updates

    def _body(self) -> None:
        for noise in (self.draws.td_noise, self.draws.policy_noise):
            noise.normal_(generator=self.learner.generator)
        self._metrics = self.learner.update(self.batch, self.draws)

    def _state(self) -> list[Tensor]:
        learner = self.learner
        optimisers = (learner.optimiser, learner.policy_optimiser)
        moments = [t for o in optimisers for state in o.state.values() for t in state.values()]
        scales = [learner.scale.value, learner.kl_scale.value]
        return [*learner.model.parameters(), *learner.model.buffers(), *moments, *scales]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """As `Learner.update`; the metrics are overwritten by the next call."""
        given = _tensors(batch.prepare(self.learner.config.window))
        for name, value in _tensors(self.batch).items():
            value.copy_(given[name], non_blocking=True)
        for heads in (self.draws.td_heads, self.draws.policy_heads):
            if heads is not None:
                chosen = torch.randperm(self.learner.model.config.num_q, generator=self._host)[:2]
                heads.copy_(chosen, non_blocking=True)
        self._repeat.run()
        if self._repeat.replays:  # what `Learner.update` does beside the tensors
            self.learner.updates += 1
            increment_version([p for p in self.learner.model.parameters() if p.requires_grad])
        return self._metrics

    def repeat_draws(self) -> UpdateDraws:
        """The random numbers of the last call, to hand to `Learner.update`."""
        d = self.draws
        heads = (None if h is None else h.clone() for h in (d.td_heads, d.policy_heads))
        td_heads, policy_heads = heads
        return UpdateDraws(d.td_noise.clone(), td_heads, d.policy_noise.clone(), policy_heads)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {f.name: v for f in fields(batch) if (v := getattr(batch, f.name)) is not None}
