"""The learner: one world-model step, one policy step and one target step per call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.learning.actor import OBJECTIVES, ActorInputs, ActorOptions, RunningScale, plan_divergence
from tdmpc2_core.learning.batch import Batch, UpdateDraws, draw_update
from tdmpc2_core.learning.branches import Branches, branch_error
from tdmpc2_core.learning.losses import (
    LossWeights,
    WorldModelLosses,
    masked_mean,
    n_step_returns,
    termination_metrics,
    time_weights,
    world_model_losses,
)
from tdmpc2_core.model import WorldModel
from tdmpc2_core.model.kernels import KERNELS_WHY, KernelChoice, kernels, using


@dataclass(frozen=True)
class LearnerConfig:
    """One gradient step of TD-MPC2; the defaults are the paper's. Field metadata: unit and reason.

    Raises ValueError on values that cannot work.
    """

    horizon: int = setting(3, low=1, unit="decisions", why="length of the latent rollout that is trained")
    n_step: int = setting(
        1,
        low=1,
        unit="decisions",
        why="rewards summed before the bootstrap; 1 is the paper, 3 learns faster early",
    )
    batch_size: int = setting(256, low=1, unit="windows", why="windows per update")
    discount: float = setting(0.99, above=0, high=1, unit="per decision", why="see returns.discount_for")
    task_discounts: tuple[float, ...] = setting(
        (), above=0, high=1, unit="per decision", why="one per task; empty: `discount` for all"
    )
    rho: float = setting(0.5, unit="per decision", why="decay of the loss weights along the rollout")
    consistency_coef: float = setting(20.0, unit="dimensionless", why="weight of the latent prediction error")
    reward_coef: float = setting(0.1, unit="dimensionless", why="weight of the reward cross entropy")
    value_coef: float = setting(0.1, unit="dimensionless", why="weight of the value cross entropy")
    termination_coef: float = setting(
        1.0, unit="dimensionless", why="weight of the termination cross entropy"
    )
    branch_coef: float = setting(
        1.0, low=0, unit="dimensionless", why="weight of the order of branches from one state, where given"
    )
    imitation_coef: float = setting(
        0.0,
        low=0,
        unit="1/action^2",
        why="weight of the policy's distance from stored plans in the world-model loss; 0 is the paper",
    )
    imitation_tolerance: float = setting(
        0.05, above=0, unit="action", why="distance beyond which a stored plan pulls less and less there"
    )
    lr: float = setting(3e-4, unit="per update", why="Adam step of everything but the encoder")
    enc_lr_scale: float = setting(
        0.3, unit="dimensionless", why="the encoder moves slower: its outputs are the targets"
    )
    adam_eps: float = setting(1e-8, unit="gradient", why="Adam epsilon of the world model")
    policy_adam_eps: float = setting(1e-5, unit="gradient", why="Adam epsilon of the policy")
    grad_clip_norm: float = setting(
        20.0, unit="gradient norm", why="clip of world model and policy, each on its own"
    )
    tau: float = setting(
        0.01, unit="per update", why="target value heads move by this share; also the running scale"
    )
    actor_states: Literal["predicted", "mixed"] = setting(
        "predicted",
        why="that the policy learns on: the rollout's, as the paper, or every other window's encoded ones",
    )
    actor: ActorOptions = setting(factory=ActorOptions, why="objective of the policy prior")
    soft_termination: bool = setting(
        False,
        why="policy loss of predicted states weighted by the predicted probability of getting there",
    )
    leak_policy_gradient_to_task: bool = setting(
        True,
        why="task embedding also gets the policy loss gradient, at the next step, as in the official code",
    )
    kernels: KernelChoice = setting("auto", why=KERNELS_WHY)
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", why="matrix products; losses and norms stay float32"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def window(self) -> int:
        """Steps of a window that the learner reads."""
        return self.horizon + self.n_step - 1

    @property
    def loss_weights(self) -> LossWeights:
        """Weights of the world-model losses."""
        return LossWeights(
            self.consistency_coef,
            self.reward_coef,
            self.value_coef,
            self.termination_coef,
            self.imitation_coef,
            self.imitation_tolerance,
        )


def parameter_groups(model: WorldModel, lr: float, enc_lr_scale: float) -> list[dict[str, Any]]:
    """Adam groups of the world model, named by part; the policy has an optimiser of its own.

    lr: step of every part but the encoder, whose step is lr * enc_lr_scale. Parameters with requires_grad
    False, and parts that have no others, are left out: that is how a part is frozen for fine-tuning.
    """
    parts: dict[str, nn.Module | None] = {
        "encoder": model.encoder,
        "dynamics": model.dynamics,
        "residual": model.residual_head,
        "reward": model.reward_head,
        "termination": model.termination_head,
        "q": model.q_heads,
        "state": model.state_head if model.config.readings else None,
    }
    groups: list[dict[str, Any]] = []
    for name, part in parts.items():
        params = [] if part is None else [p for p in part.parameters() if p.requires_grad]
        if params:
            groups.append(
                {"params": params, "lr": lr * enc_lr_scale if name == "encoder" else lr, "name": name}
            )
    if model.task_embedding is not None and model.task_embedding.requires_grad:
        groups.append({"params": [model.task_embedding], "lr": lr, "name": "task_embedding"})
    return groups


class PrivilegedTargets:
    """What a simulator's knowledge of the states teaches: their value, and what the latents should tell.

    Args:
        critic: values (...) of privileged observations (..., P), return units; of the policy that acts, they
            replace the model's own bootstrap (as SimDist does; the value of a policy that acts, not of the
            best action that a critic can imagine).
        normalise: privileged observations (..., P) -> the same with each entry on the scale 1.
        coef: weight, in the world-model loss, of the error of the model's head that reads the state; 0: it is
            not computed, and the observations need not be those which that head reads.
    """

    def __init__(
        self,
        critic: Callable[[Tensor], Tensor],
        normalise: Callable[[Tensor], Tensor],
        coef: float,
    ) -> None:
        self._critic, self._normalise, self.coef = critic, normalise, coef

    @torch.no_grad()
    def values(self, batch: Batch) -> Tensor:
        """Values (W, B, 1) of the observations 1..W."""
        return self._critic(_privileged(batch)[1:]).unsqueeze(-1)

    def error(self, model: WorldModel, batch: Batch, zs: Tensor, weights: Tensor) -> Tensor:
        """Mean squared error () of the state that the model reads from predicted latents zs (H + 1, B, L)."""
        horizon = len(zs) - 1
        wanted = self._normalise(_privileged(batch)[1 : horizon + 1])
        valid = batch.valid[:horizon] * weights
        return masked_mean((model.state_head(zs[1:]) - wanted).square().mean(-1, keepdim=True), valid)


def _privileged(batch: Batch) -> Tensor:
    if batch.privileged is None:
        raise ValueError("privileged targets need the field privileged in the batch")
    return batch.privileged


class Learner:
    """Trains a world model in place (TD-MPC2 paper, algorithm 2).

    model: stays on its device; batches are moved there. generator: source of every random number, on the same
    device. No call waits for the device: metrics come back as tensors. reduce: called with the parameters of
    each step between its backward pass and the clipping of their gradients, which it may change in place:
    where several processes learn together, it averages them; gather: then gives the values (1, B, 1) of all
    of them, from which the running scale follows. privileged: targets from what a simulator knows
    of the batch's states, in place of values that bootstrap from the model's own.
    """

    def __init__(
        self,
        model: WorldModel,
        config: LearnerConfig,
        generator: torch.Generator,
        reduce: Callable[[list[nn.Parameter]], None] | None = None,
        privileged: PrivilegedTargets | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if config.task_discounts and len(config.task_discounts) != model.config.num_tasks:
            given, tasks = len(config.task_discounts), model.config.num_tasks
            raise ValueError(f"task_discounts has {given} entries, the model {tasks} tasks")
        self.model = model
        self.config = config
        self.generator = generator
        self._reduce, self._privileged, self._gather = reduce, privileged, gather
        self.device = next(model.parameters()).device
        self.scale = RunningScale(config.tau, self.device)
        self.kl_scale = RunningScale(config.tau, self.device)
        self.updates = 0
        self._rho = time_weights(config.rho, config.horizon + 1, self.device)
        self._discount = torch.tensor(config.task_discounts or config.discount, device=self.device)
        self._policy_params = [p for p in model.policy_head.parameters() if p.requires_grad]
        owned = {id(p) for p in model.policy_head.parameters()}
        self._model_params = [p for p in model.parameters() if p.requires_grad and id(p) not in owned]
        kind = self.device.type
        adam = partial(
            torch.optim.Adam, lr=config.lr, fused=kind in ("cpu", "cuda"), capturable=kind == "cuda"
        )
        groups = parameter_groups(model, config.lr, config.enc_lr_scale)
        self.optimiser = adam(groups, eps=config.adam_eps)
        self.policy_optimiser = adam(self._policy_params, eps=config.policy_adam_eps)
        self._kernels = kernels(config.kernels)
        self._objective = OBJECTIVES[config.actor.objective]
        self._online = [p.data for p in model.q_heads.parameters()]
        self._target = [p.data for p in model.target_q_heads.parameters()]

    def draw(self, batch_size: int) -> UpdateDraws:
        """Fresh random numbers for one update of `batch_size` windows."""
        model = self.model.config
        shape = (self.config.horizon, batch_size, model.action_dim)
        images = self.config.window + 1 if model.obs_kind == "pixels" else 0
        return draw_update(shape, model.num_q, self.generator, self.device, images)

    def _precision(self) -> AbstractContextManager[Any]:
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)

    @torch.no_grad()
    def targets(self, batch: Batch, draws: UpdateDraws) -> tuple[Tensor, Tensor]:
        """Latents of observations 1..H (H, B, L) and value targets (H, B, 1), without gradient.

        The value of the bootstrap state is the minimum of two target heads at a sampled policy action.
        """
        model, config = self.model, self.config
        zs = model.encode(batch.obs[1:], batch.task, draws.shifts_of(slice(1, None)))
        discount = self._discount[batch.task][:, None] if self._discount.ndim else self._discount
        horizon = config.horizon
        returns = n_step_returns(
            batch.reward, batch.terminated, batch.valid, discount, horizon, config.n_step
        )
        z, known = zs, None if self._privileged is None else self._privileged.values(batch)
        if config.n_step > 1:
            start = torch.arange(horizon, device=self.device)[:, None]
            column = torch.arange(batch.size, device=self.device)
            last = start + returns.steps[..., 0] - 1, column
            z, known = zs[last], None if known is None else known[last]
        if known is not None:
            return zs[:horizon], returns.reward + returns.bootstrap * known[:horizon]
        action = model.policy(z, batch.task, draws.td_noise).action
        value = model.q_values(z, action, batch.task, draws.td_heads, target=True).amin(0)
        return zs[:horizon], returns.reward + returns.bootstrap * value

    def update(
        self, batch: Batch, draws: UpdateDraws | None = None, branches: Branches | None = None
    ) -> dict[str, Tensor]:
        """One gradient step on a batch of windows; returns scalar metrics as detached tensors.

        draws: random numbers to use instead of fresh ones. branches: learned beside the batch, with the
        weight `branch_coef`. Raises ValueError when the batch does not fit the
        config.
        """
        batch = batch if batch.obs.device == self.device else batch.to(self.device)
        batch = batch.prepare(self.config.window)
        if self._objective.needs_plan and batch.plan_mean is None:
            raise ValueError(f"objective {self.config.actor.objective!r} needs plan fields in the batch")
        draws = self.draw(batch.size) if draws is None else draws
        with using(self._kernels):
            with self._precision():
                next_z, target = self.targets(batch, draws)
            losses, metrics = self._world_model_step(batch, next_z, target, draws, branches)
            states = losses.zs.detach()
            if self.config.actor_states == "mixed":
                states = states.clone()
                states[1:, ::2] = next_z[:, ::2]
            metrics |= self._policy_step(batch, losses, states, draws)
        torch._foreach_lerp_(self._target, self._online, self.config.tau)
        self.updates += 1
        return metrics

    def _world_model_step(
        self,
        batch: Batch,
        next_z: Tensor,
        target: Tensor,
        draws: UpdateDraws,
        branches: Branches | None = None,
    ) -> tuple[WorldModelLosses, dict[str, Tensor]]:
        model, config = self.model, self.config
        random = self.generator if model.config.dropout > 0 else None
        rho, shifts = self._rho[: config.horizon], draws.shifts_of(0)
        with self._precision():
            losses = world_model_losses(
                model, batch, next_z, target, rho, config.loss_weights, random, shifts
            )
        total, more = losses.total, {}
        if branches is not None:
            more["branch_error"] = branch_error(model, branches, config.discount)
            total = total + config.branch_coef * more["branch_error"]
        if self._privileged is not None and self._privileged.coef:
            more["state_error"] = self._privileged.error(model, batch, losses.zs, rho)
            total = total + self._privileged.coef * more["state_error"]
        total.backward()
        self.policy_optimiser.zero_grad(set_to_none=True)  # the policy has its own objective
        self._exchange(self._model_params)
        norm = nn.utils.clip_grad_norm_(self._model_params, config.grad_clip_norm)
        self._step(self.optimiser, self._model_params)
        self.optimiser.zero_grad(set_to_none=True)
        metrics = {
            "consistency_loss": losses.consistency,
            "reward_loss": losses.reward,
            "value_loss": losses.value,
            "termination_loss": losses.termination,
            "imitation_loss": losses.imitation,
            "total_loss": losses.total,
            "grad_norm": norm,
            "td_target": target.nanmean(),
        }
        metrics = {name: value.detach() for name, value in (metrics | more).items()}
        if losses.termination_logits is not None:
            steps, logits = slice(config.horizon), losses.termination_logits.detach()
            metrics |= termination_metrics(logits, batch.terminated[steps], batch.valid[steps])
        return losses, metrics

    @staticmethod
    def _step(optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
        """One step. Planners see new weights by version counters, which the fused kernel leaves alone."""
        optimiser.step()
        increment_version(parameters)

    def _exchange(self, parameters: list[nn.Parameter]) -> None:
        if self._reduce is not None:
            self._reduce(parameters)

    def _state_weights(self, batch: Batch, losses: WorldModelLosses) -> Tensor:
        """Weights of the H + 1 states in the policy loss (H + 1, B, 1), rho^t included."""
        valid = batch.valid[: self.config.horizon]
        weights = torch.cat([valid[:1], valid])
        if self.config.soft_termination and losses.termination_logits is not None:
            reached = losses.termination_logits.detach().neg().sigmoid().cumprod(0)
            weights = weights * torch.cat([torch.ones_like(reached[:1]), reached])
        return weights * self._rho

    def _actor_inputs(self, batch: Batch, zs: Tensor, draws: UpdateDraws) -> ActorInputs:
        model, horizon = self.model, self.config.horizon
        freeze = not self.config.leak_policy_gradient_to_task
        sample = model.policy(zs, batch.task, draws.policy_noise, freeze_task=freeze)
        q = None
        if self._objective.heads is not None:
            heads = model.q_values(
                zs,
                sample.action,
                batch.task,
                draws.policy_heads,
                frozen=True,
                freeze_task=freeze,
                dropout_generator=self.generator if model.config.dropout > 0 else None,
            )
            q = heads.amin(0) if self._objective.heads == "min" else heads.mean(0)
            self.scale.update((q[:1] if self._gather is None else self._gather(q[:1]))[0])
        mean, std, mask = (
            None if x is None else x[:horizon] for x in (batch.plan_mean, batch.plan_std, batch.has_plan)
        )
        valid = batch.valid[:horizon]
        plan_mask = None if mask is None else mask * valid
        return ActorInputs(
            sample,
            q,
            self.scale.value,
            self.kl_scale.value,
            batch.action[:horizon],
            valid,
            model.action_mask(batch.task),
            mean,
            std,
            plan_mask,
        )

    def _policy_step(
        self, batch: Batch, losses: WorldModelLosses, states: Tensor, draws: UpdateDraws
    ) -> dict[str, Tensor]:
        """On states (H + 1, B, L)."""
        options = self.config.actor
        with self._precision():
            inputs = self._actor_inputs(batch, states, draws)
        weights = self._state_weights(batch, losses)
        if options.objective == "bmpc":
            inputs = replace(inputs, kl_scale=self.kl_scale.update(plan_divergence(inputs, options)[0]))
        loss = masked_mean(self._objective.loss(inputs, options), weights)
        loss.backward()
        self._exchange(self._policy_params)
        norm = nn.utils.clip_grad_norm_(self._policy_params, self.config.grad_clip_norm)
        self._step(self.policy_optimiser, self._policy_params)
        self.policy_optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            metrics = {
                "pi_loss": loss.detach(),
                "pi_grad_norm": norm.detach(),
                "pi_entropy": inputs.sample.entropy.mean(),
                "pi_scaled_entropy": inputs.sample.scaled_entropy.mean(),
                "pi_scale": self.scale.value.clone(),
            }
            if inputs.plan_mask is not None:
                metrics["plan_share"] = inputs.plan_mask.mean()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model: optimisers, running scales, update count, generator."""
        embedding = self.model.task_embedding
        left_over = None if embedding is None or embedding.grad is None else embedding.grad.clone()
        return {
            "optimiser": deepcopy(self.optimiser.state_dict()),
            "policy_optimiser": deepcopy(self.policy_optimiser.state_dict()),
            "scale": self.scale.state_dict(),
            "kl_scale": self.kl_scale.state_dict(),
            "updates": self.updates,
            "generator": self.generator.get_state(),
            "task_gradient": left_over,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, for a learner of the same model; it keeps its own learning rates."""
        for name in ("optimiser", "policy_optimiser"):
            optimiser: torch.optim.Optimizer = getattr(self, name)
            rates = [group["lr"] for group in optimiser.param_groups]
            optimiser.load_state_dict(state[name])
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate
        self.scale.load_state_dict(state["scale"])
        self.kl_scale.load_state_dict(state["kl_scale"])
        self.updates = int(state["updates"])
        self.generator.set_state(state["generator"].cpu())
        left_over = state["task_gradient"]
        if self.model.task_embedding is not None:
            self.model.task_embedding.grad = None if left_over is None else left_over.to(self.device)
