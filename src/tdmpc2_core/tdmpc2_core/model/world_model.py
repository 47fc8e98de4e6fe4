"""The TD-MPC2 world model: encoder, latent dynamics, reward, values, policy prior and termination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.errors import UserError
from tdmpc2_core.model.architecture import WorldModelConfig, check_last, check_observation_shape
from tdmpc2_core.model.distributions import PolicySample, TwoHot, squashed_gaussian
from tdmpc2_core.model.encoder import ObservationNormaliser, PixelEncoder, state_encoder
from tdmpc2_core.model.layers import MLP, Heads, MLPEnsemble


def build_model(config: WorldModelConfig, weights: Mapping[str, Tensor], where: str) -> WorldModel:
    """World model on the CPU with copies of `weights` (names of its state dict), in evaluation mode.

    Buffers that `weights` leaves out (observation statistics, action masks) have their initial values.
    where: begins the sentence of an error.

    Raises:
        UserError: a weight is missing, unknown, of the wrong shape or kind, or not finite; the first such
            weight is named.
    """
    if config.num_enc_layers > len(weights):  # before thousands of layers are made for nothing
        raise UserError(f"{where}: {config.num_enc_layers} encoder layers but {len(weights)} weights")
    try:
        with torch.device("meta"):
            model = WorldModel(config)
    except (ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{where}: the model configuration cannot be built: {error}") from None
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = {**_initial_buffers(config, weights), **weights}
    for name in [*expected, *state]:
        _check(name, expected.get(name), state.get(name), where)
    copies = {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in state.items()}
    model.load_state_dict(copies, assign=True)
    model.reset_bins()
    return model.eval()


def _initial_buffers(config: WorldModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    buffers: dict[str, Tensor] = {}
    if not any(name.startswith("normaliser.") for name in weights):
        statistics = _normaliser(config).state_dict()
        buffers = {f"normaliser.{name}": value for name, value in statistics.items()}
    if config.num_tasks:
        buffers["action_masks"] = action_mask_table(config)
    return buffers


def _normaliser(config: WorldModelConfig) -> ObservationNormaliser:
    return ObservationNormaliser(config.obs_dim, config.normalise_obs, tasks=len(config.obs_dims))


def _check(name: str, want: tuple[int, ...] | None, have: Tensor | None, where: str) -> None:
    if want is None or have is None or tuple(have.shape) != want:
        found = "missing" if have is None else f"of shape {tuple(have.shape)}"
        right = "none of that name" if want is None else f"one of shape {want}"
        raise UserError(f"{where}: weight {name!r} is {found}, the model configuration needs {right}")
    if not have.is_floating_point() or have.layout != torch.strided:
        raise UserError(f"{where}: weight {name!r} is of type {have.dtype}, must hold real numbers")
    if not bool(torch.isfinite(have).all()):
        raise UserError(f"{where}: weight {name!r} is not finite; use an earlier checkpoint")


def with_residual(model: WorldModel, width: int) -> WorldModel:
    """A copy of `model` with a residual head on its dynamics that adds nothing yet; it predicts the same.

    A head that the model has already is kept, whatever its width.
    """
    if model.residual_head is not None:
        return deepcopy(model)
    made = WorldModel(replace(model.config, residual_dim=width)).to(next(model.parameters()).device)
    head = {name: value for name, value in made.state_dict().items() if name.startswith("residual_head.")}
    made.load_state_dict({**model.state_dict(), **head})
    return made.train(model.training)


__all__ = ["PolicySample", "Task", "WorldModel", "WorldModelConfig"]

Task = Tensor | int | None
"""Task index: int64 tensor that broadcasts to the leading dimensions of the input, a number, or None."""


def action_mask_table(config: WorldModelConfig) -> Tensor:
    """Ones for the real action entries of every task (tasks, A)."""
    return (torch.arange(config.action_dim) < torch.tensor(config.action_dims)[:, None]).float()


def _two_hot(config: WorldModelConfig, ends: Sequence[float]) -> TwoHot:
    if not ends:
        return TwoHot(config.num_bins, config.vmin, config.vmax)
    low, high = ends
    return TwoHot(config.num_bins, low, high, linear=True)


class WorldModel(nn.Module):
    """World model of the TD-MPC2 paper. Shapes: O observation, A action, L latent, `...` anything.

    Training and evaluation mode differ in one thing: `normaliser.update` works in training mode only. Dropout
    of the value heads is switched on by handing a generator to `q_logits`. Nothing here draws from the global
    random state.

    config: the architecture. generator: draws the initial weights; seed 0 when omitted.
    """

    reward_bins: Tensor
    value_bins: Tensor
    action_masks: Tensor | None
    task_embedding: nn.Parameter | None
    state_head: nn.Linear
    state_mean: Tensor
    state_scale: Tensor

    def __init__(self, config: WorldModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0) if generator is None else generator
        self.config = config
        self.reward_two_hot = _two_hot(config, config.reward_range)
        self.value_two_hot = _two_hot(config, config.value_range)
        hidden, latent, task = [config.mlp_dim] * 2, config.latent_dim, config.task_dim
        state_action = latent + task + config.action_dim
        self.normaliser = _normaliser(config)
        self.encoder: nn.Module = (
            PixelEncoder(config, g) if config.obs_kind == "pixels" else state_encoder(config, g)
        )
        self.dynamics = MLP(state_action, hidden, latent, g, config.simnorm_dim)
        self.reward_head = MLP(state_action, hidden, config.num_bins, g)
        self.termination_head = MLP(latent, hidden, 1, g) if config.episodic else None
        self.policy_head = MLP(latent + task, hidden, 2 * config.action_dim, g)
        self.q_heads = MLPEnsemble(config.num_q, state_action, hidden, config.num_bins, config.dropout, g)
        self.target_q_heads = MLPEnsemble(config.num_q, state_action, hidden, config.num_bins, 0.0, g)
        if config.readings:
            self.state_head = nn.utils.skip_init(nn.Linear, latent, len(config.readings))
            nn.init.zeros_(self.state_head.weight)  # nothing is drawn: other weights stay what they are
            nn.init.zeros_(self.state_head.bias)
            self.register_buffer("state_mean", torch.zeros(len(config.readings)))
            self.register_buffer("state_scale", torch.ones(len(config.readings)))
        self._initialise_tasks(g)
        self.reset_bins()
        self.residual_head: MLP | None = None
        if config.residual_dim:  # drawn last: other weights stay what they are
            self.residual_head = MLP(state_action, [config.residual_dim], latent, g)
            nn.init.zeros_(self.residual_head.get_parameter("layers.1.weight"))
        with torch.no_grad():
            self.reward_head.get_parameter("layers.2.weight").zero_()
        self.q_heads.zero_output_weight()
        self.target_q_heads.load_state_dict(self.q_heads.state_dict())
        self.target_q_heads.requires_grad_(False)

    def reset_bins(self) -> None:
        """Bin centres of reward and value (num_bins,) on the default device; they are not saved."""
        like = torch.zeros(())
        self.register_buffer("reward_bins", self.reward_two_hot.bins(like), persistent=False)
        self.register_buffer("value_bins", self.value_two_hot.bins(like), persistent=False)

    @property
    def reading_slices(self) -> dict[str, slice]:
        """Where each quantity of `config.readings` lies in what `read_state` gives."""
        names = self.config.readings
        return {
            name: slice(names.index(name), names.index(name) + names.count(name))
            for name in dict.fromkeys(names)
        }

    def read_state(self, z: Tensor) -> Tensor:
        """z (..., L) -> the state that it tells (..., S), SI units; for a model with readings."""
        return torch.addcmul(self.state_mean, self.state_head(z), self.state_scale)

    def _initialise_tasks(self, generator: torch.Generator) -> None:
        config = self.config
        if not config.num_tasks:
            self.register_parameter("task_embedding", None)
            self.register_buffer("action_masks", None)
            return
        table = torch.empty(config.num_tasks, config.task_dim).uniform_(-0.02, 0.02, generator=generator)
        self.task_embedding = nn.Parameter(table)
        self.register_buffer("action_masks", action_mask_table(config))

    @property
    def num_parameters(self) -> int:
        """Learnable parameters; the target copy of the value heads is not counted."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def embed(self, task: Task, like: Tensor, freeze: bool = False) -> Tensor:
        """Task embedding expanded to the leading dimensions of `like` -> (..., task_dim).

        A row whose L2 norm exceeds 1 is rescaled to norm 1 in place, in the table itself, when it is looked
        up. freeze: no gradient for the table. Raises ValueError when the model needs a task and none is
        given.
        """
        if task is None or self.task_embedding is None:
            raise ValueError(f"this model has {self.config.num_tasks} tasks: give the task index")
        index = torch.as_tensor(task, device=like.device).long()
        rows = F.embedding(index, self.task_embedding, max_norm=1.0)
        rows = rows.detach() if freeze else rows
        return rows.expand(*like.shape[:-1], rows.shape[-1])

    def _with_task(self, x: Tensor, task: Task, freeze: bool = False) -> list[Tensor]:
        return [x, self.embed(task, x, freeze)] if self.config.num_tasks else [x]

    def _parts(
        self, z: Tensor, task: Task, action: Tensor | None = None, freeze_task: bool = False
    ) -> list[Tensor]:
        """Inputs of a network in their order: z, task embedding, action; the last two where there are any."""
        check_last("z", z, self.config.latent_dim)
        parts = self._with_task(z, task, freeze_task)
        if action is None:
            return parts
        check_last("action", action, self.config.action_dim)
        return [*parts, action]

    def action_mask(self, task: Task) -> Tensor | None:
        """Ones for the real action entries of the task (..., A); None for a single-task model."""
        if self.action_masks is None:
            return None
        if task is None:
            raise ValueError(f"this model has {self.config.num_tasks} tasks: give the task index")
        return self.action_masks[torch.as_tensor(task, device=self.action_masks.device).long()]

    def encode(self, obs: Tensor, task: Task = None, shifts: Tensor | None = None) -> Tensor:
        """obs (..., O), or (..., C, 64, 64) for pixels -> z (..., L), groups of entries that sum to 1.

        The observation is normalised first when config.normalise_obs. shifts (..., 2): where images are cut
        out (`encoder.draw_shifts`), pixels only. Raises UserError when obs has another shape.
        """
        check_observation_shape(obs, self.config)
        if self.config.obs_kind == "pixels":
            return self.encoder(obs, shifts)
        return self.encoder(*self._with_task(self.normaliser(obs, task), task))

    def next(self, z: Tensor, action: Tensor, task: Task = None) -> Tensor:
        """z (..., L), action (..., A) -> predicted next z (..., L)."""
        parts = self._parts(z, task, action)
        return self.dynamics(*parts, added=None if self.residual_head is None else self.residual_head(*parts))

    def reward_logits(self, z: Tensor, action: Tensor, task: Task = None) -> Tensor:
        """z (..., L), action (..., A) -> logits over the reward bins (..., num_bins)."""
        return self.reward_head(*self._parts(z, task, action))

    def reward(self, z: Tensor, action: Tensor, task: Task = None) -> Tensor:
        """z (..., L), action (..., A) -> expected reward (..., 1), reward units."""
        return self.reward_two_hot.decode(self.reward_logits(z, action, task), self.reward_bins)

    def termination_logits(self, z: Tensor, task: Task = None) -> Tensor:
        """z (..., L) of the state entered -> logit of a terminal one (..., 1). ValueError if not episodic."""
        if self.termination_head is None:
            raise ValueError("this model has no termination head: build it with episodic=True")
        return self.termination_head(z)

    def termination(self, z: Tensor, task: Task = None) -> Tensor:
        """z (..., L) of the state entered -> probability that it is terminal (..., 1)."""
        return self.termination_logits(z, task).sigmoid()

    def q_logits(
        self,
        z: Tensor,
        action: Tensor,
        task: Task = None,
        heads: Heads = None,
        target: bool = False,
        frozen: bool = False,
        freeze_task: bool = False,
        dropout_generator: torch.Generator | None = None,
    ) -> Tensor:
        """z (..., L), action (..., A) -> logits over the value bins (heads, ..., num_bins), as in `heads`.

        heads: indices to compute (only those are), None for all. target: the slow copy. frozen: weights are
        constants of the backward pass. freeze_task: so is the task embedding. dropout_generator: switches
        dropout on.
        """
        ensemble = self.target_q_heads if target else self.q_heads
        parts = self._parts(z, task, action, freeze_task)
        return ensemble(*parts, heads=heads, frozen=frozen, dropout_generator=dropout_generator)

    def q_values(self, z: Tensor, action: Tensor, *arguments: Any, **named: Any) -> Tensor:
        """Values (heads, ..., 1) in return units; arguments as for `q_logits`."""
        return self.value_two_hot.decode(self.q_logits(z, action, *arguments, **named), self.value_bins)

    def policy(
        self, z: Tensor, task: Task = None, noise: Tensor | None = None, freeze_task: bool = False
    ) -> PolicySample:
        """z (..., L) -> sample of the policy prior. noise (..., A): standard normal; None: the mean action.

        Densities and entropies of the sample are computed when they are read, so acting does not pay for
        them.
        """
        output = self.policy_head(*self._parts(z, task, freeze_task=freeze_task))
        config = self.config
        return squashed_gaussian(
            output, noise, config.log_std_min, config.log_std_max, self.action_mask(task)
        )
