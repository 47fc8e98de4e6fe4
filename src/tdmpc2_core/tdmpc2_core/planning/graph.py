"""`PlanGraph`: one plan as a fixed sequence of operations on fixed buffers, on CUDA as one captured graph."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from tdmpc2_core.capture import Repeat, best_repeat
from tdmpc2_core.planning.fused import FusedRollout
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.protocol import PlanBatch, PlanDraws


class PlanGraph:
    """`MPPI.plan` for a fixed number of robots, without deadline, each time through the same buffers.

    The random numbers are drawn inside the graph; which value heads are averaged is drawn on the host and
    handed in, and so are the observation and the starts. Every call gives the same tensors with new contents.

    Args:
        planner: its weights, warm start and generator are used.
        robots: B.
        evaluate: as for `Planner.plan`.
        repeat: how the operations are repeated; None: what the device is best at.

    Raises:
        ValueError: the planner stops early (`tolerance`), has several tasks or pixels, or is not fused.
    """

    def __init__(self, planner: MPPI, robots: int, evaluate: bool, repeat: Repeat | None = None) -> None:
        cfg, model = planner.config, planner.model.config
        if cfg.tolerance > 0 or model.num_tasks or model.obs_kind != "state":
            raise ValueError("a plan graph needs tolerance 0, a single task and state observations")
        if not isinstance(planner.rollout, FusedRollout):
            raise ValueError("a plan graph needs a fused rollout")
        self.planner, self.evaluate, self._rollout = planner, evaluate, planner.rollout
        like = next(planner.model.parameters()).detach()
        size, samples = model.action_dim, cfg.num_samples
        self.obs = like.new_zeros(robots, model.obs_dim)
        self.first = torch.zeros(robots, dtype=torch.bool, device=like.device)
        self.draws = PlanDraws(
            prior=like.new_zeros(cfg.horizon, robots, cfg.num_pi_trajs, size),
            samples=like.new_zeros(cfg.iterations, cfg.horizon, robots, samples - cfg.num_pi_trajs, size),
            terminal=like.new_zeros(cfg.iterations, robots, samples, size),
            heads=torch.zeros(cfg.iterations, 2, dtype=torch.int64, device=like.device),
            elite=like.new_ones(robots, cfg.num_elites),
            final=like.new_zeros(robots, size),
            gather=True,
        )
        self._mean = like.new_zeros(cfg.horizon, robots, size)
        self._result: PlanBatch | None = None
        self._rollout.weights.keep_storage = True
        self._repeat = best_repeat(like.device) if repeat is None else repeat
        self._repeat.prepare(self._body, [planner.generator], lambda: [self._mean])

    @torch.inference_mode()
    def _body(self) -> None:
        draws, generator = self.draws, self.planner.generator
        assert draws.elite is not None and draws.final is not None
        for noise in (draws.prior, draws.samples, draws.terminal, draws.final):
            noise.normal_(generator=generator)
        draws.elite.exponential_(generator=generator)
        self._plan(draws)

    def _plan(self, draws: PlanDraws) -> None:
        self.planner.carry(self._mean)
        plan = self.planner.plan(self.obs, self.first, self.evaluate, draws=draws)
        self._mean.copy_(plan.mean.transpose(0, 1))
        self._result = plan

    def plan(self, obs: Tensor, first: Tensor) -> PlanBatch:
        """Plan for obs (B, O), first (B,); see `Planner.plan`. The result is overwritten by the next call."""
        self._rollout.weights.refresh()
        self.obs.copy_(obs, non_blocking=True)
        self.first.copy_(first, non_blocking=True)
        count = self.planner.config.iterations
        self.draws.heads.copy_(torch.tensor(self.planner.draw_heads(count)), non_blocking=True)
        self._repeat.run()
        assert self._result is not None
        return self._result

    def repeat_draws(self) -> PlanDraws:
        """The random numbers of the last call, to hand to `MPPI.plan`."""
        values = {f.name: getattr(self.draws, f.name) for f in fields(self.draws)}
        values = {name: v.clone() if isinstance(v, Tensor) else v for name, v in values.items()}
        return PlanDraws(**{**values, "gather": False})
