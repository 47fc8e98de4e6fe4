"""The expert: policy and value learned from what only a simulator knows (PPO, arXiv 1707.06347).

It acts on privileged observations, so a small network learns fast; the world model's policy prior learns from
its actions and the world model's values from its value, as SimDist does (values of a policy that acts, not of
the best action a critic can imagine).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.model.encoder import ObservationNormaliser


@dataclass(frozen=True)
class ExpertConfig:
    """Proximal policy optimisation with generalised advantages; field metadata: unit and reason."""

    hidden: tuple[int, ...] = setting((256, 128), unit="units", why="widths of policy and value, ELU between")
    decisions: int = setting(24, low=1, unit="decisions", why="per robot and rollout: half a second at 50 Hz")
    epochs: int = setting(5, low=1, why="passes over a rollout; more reuse data that is nearly free here")
    minibatches: int = setting(4, low=1, why="gradient steps per pass")
    discount: float = setting(0.99, above=0, high=1, unit="per decision", why="foresight of two seconds")
    trace: float = setting(0.95, low=0, high=1, why="lambda of the advantages: bias against variance")
    clip: float = setting(0.2, above=0, unit="ratio", why="how far a rollout may move the policy")
    entropy_coef: float = setting(
        0.005, low=0, unit="1/nat", why="keeps the policy's spread from closing early; falls linearly to 0"
    )
    entropy_share: float = setting(
        0.4, above=0, high=1, why="of a run, with a bonus for entropy; then the spread closes by itself"
    )
    lr: float = setting(1e-3, above=0, unit="per update", why="Adam step at the start; follows desired_kl")
    desired_kl: float = setting(
        0.01, above=0, unit="nat", why="change of the policy per rollout that lr aims at"
    )
    grad_clip_norm: float = setting(
        1.0, above=0, unit="gradient norm", why="clip of policy and value together"
    )
    initial_std: float = setting(0.5, above=0, unit="action", why="exploration at the start, of [-1, 1]")
    final_std: float = setting(
        0.15,
        above=0,
        unit="action",
        why="bound of the spread at the end; under much noise of its own no policy gets smooth",
    )

    def __post_init__(self) -> None:
        check_fields(self)


class Experience(NamedTuple):
    """T decisions of N robots.

    observation (T, N, P), action (T, N, A), log_prob, value, reward (T, N); terminated, truncated (T, N)
    bool; timeout (T, N): value of the last state of an episode that ran out of time, elsewhere unread;
    last_value (N): value of the state after the last decision.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    timeout: Tensor
    last_value: Tensor


def generalised_advantages(
    experience: Experience, discount: float, trace: float, followed: Tensor | None = None
) -> Tensor:
    """Advantages (T, N) (Schulman et al., arXiv 1506.02438); add the values for the lambda-returns.

    followed: (T, N) bool, where the action was that of the policy which is valued. Traces end before an
    action that was not; its own row is no estimate of that policy.
    """
    advantage = torch.zeros_like(experience.last_value)
    advantages = torch.empty_like(experience.reward)
    following = experience.last_value
    for t in reversed(range(len(experience.reward))):
        ended = experience.terminated[t] | experience.truncated[t]
        onward = torch.where(ended, experience.timeout[t] * experience.truncated[t], following)
        error = experience.reward[t] + discount * onward - experience.value[t]
        goes_on = ~ended
        if followed is not None and t + 1 < len(followed):
            goes_on = goes_on & followed[t + 1]
        advantage = error + discount * trace * advantage * goes_on
        advantages[t] = advantage
        following = experience.value[t]
    return advantages


def _network(inputs: int, hidden: tuple[int, ...], outputs: int, gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layer = nn.Linear(inputs, width)
        nn.init.orthogonal_(layer.weight, math.sqrt(2.0))
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ELU()]
        inputs = width
    last = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(last.weight, gain)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class Expert(nn.Module):
    """Gaussian policy and value on privileged observations (..., P); the environment clips its actions."""

    def __init__(self, observation_dim: int, action_dim: int, config: ExpertConfig) -> None:
        super().__init__()
        self.config, self.observation_dim = config, observation_dim
        self.normaliser = ObservationNormaliser(observation_dim, True)
        self.actor = _network(observation_dim, config.hidden, action_dim, 0.01)
        self.critic = _network(observation_dim, config.hidden, 1, 1.0)
        self.log_std = nn.Parameter(torch.full((action_dim,), math.log(config.initial_std)))
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_std", torch.ones(()))
        self.value_mean: Tensor
        self.value_std: Tensor

    def mean(self, observation: Tensor) -> Tensor:
        """Action (..., A) without exploration, within [-1, 1]."""
        return self.actor(self.normaliser(observation)).clamp(-1.0, 1.0)

    def value(self, observation: Tensor) -> Tensor:
        """Discounted return (...) of acting on, reward units."""
        return self.critic(self.normaliser(observation)).squeeze(-1) * self.value_std + self.value_mean

    @torch.no_grad()
    def act(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Explore: action (N, A), not clipped; its log density (N,); value (N,)."""
        normal = self.normaliser(observation)
        mean = self.actor(normal)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        action = torch.addcmul(mean, noise, self.log_std.exp())
        value = self.critic(normal).squeeze(-1) * self.value_std + self.value_mean
        return action, _log_prob(noise, self.log_std), value


@torch.no_grad()
def rescale(last: nn.Linear, mean: Tensor, std: Tensor, returns: Tensor) -> None:
    """Move mean and std () towards those of the returns; a critic with this last layer keeps what it says."""
    new_mean = mean.lerp(returns.mean(), 0.05)
    new_std = std.lerp(returns.std().clamp(min=1e-3), 0.05)
    last.weight.mul_(std / new_std)
    last.bias.mul_(std / new_std).add_((mean - new_mean) / new_std)
    mean.copy_(new_mean)
    std.copy_(new_std)


def minibatches(count: int, epochs: int, parts: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of `count` rows in random parts, every row once per epoch."""
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).chunk(parts)


def _log_prob(noise: Tensor, log_std: Tensor) -> Tensor:
    return (-0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)


class ExpertLearner:
    """Improves an `Expert` by rollouts of its own."""

    def __init__(self, expert: Expert, generator: torch.Generator) -> None:
        self.expert, self.config, self.generator = expert, expert.config, generator
        self.lr, self._entropy_coef = self.config.lr, self.config.entropy_coef
        self.optimiser = torch.optim.Adam(expert.parameters(), lr=self.lr, fused=True)

    def update(self, experience: Experience, done: float = 0.0) -> dict[str, float]:
        """Epochs over one rollout, `done` the share of the run that lies behind; returns means of its losses.

        Values are learned on the scale of their own returns, which an embodiment's reward terms decide.
        """
        expert, config = self.expert, self.config
        self._entropy_coef = config.entropy_coef * max(0.0, 1.0 - done / config.entropy_share)
        advantage = generalised_advantages(experience, config.discount, config.trace)
        returns = (advantage + experience.value).flatten()
        last = expert.critic[-1]
        assert isinstance(last, nn.Linear)
        rescale(last, expert.value_mean, expert.value_std, returns)
        flat = [
            x.flatten(0, 1)
            for x in (experience.observation, experience.action, experience.log_prob, advantage)
        ]
        observation, action, old, gain = flat
        normal = expert.normaliser(observation)
        gain = (gain - gain.mean()) / (gain.std() + 1e-8)
        target = (returns - expert.value_mean) / expert.value_std
        with torch.no_grad():
            before, spread = expert.actor(normal), expert.log_std.exp().clone()
        sums: dict[str, float] = {}
        steps = 0
        for index in minibatches(len(old), config.epochs, config.minibatches, self.generator):
            losses = self._step(normal[index], action[index], old[index], gain[index], target[index])
            self._follow(before[index], spread, normal[index])
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            steps += 1
        self._close(done)
        return {name: value / steps for name, value in sums.items()} | {
            "lr": self.lr,
            "std": float(expert.log_std.detach().exp().mean()),
            "return": float(returns.mean()),
        }

    @torch.no_grad()
    def _close(self, done: float) -> None:
        config = self.config
        share = max(0.0, done - config.entropy_share) / max(1.0 - config.entropy_share, 1e-6)
        widest = config.initial_std * (config.final_std / config.initial_std) ** min(share, 1.0)
        self.expert.log_std.clamp_(max=math.log(widest))

    def _step(
        self, normal: Tensor, action: Tensor, old: Tensor, gain: Tensor, target: Tensor
    ) -> dict[str, float]:
        expert, config = self.expert, self.config
        mean, log_std = expert.actor(normal), expert.log_std
        log_prob = _log_prob((action - mean) * (-log_std).exp(), log_std)
        ratio = (log_prob - old).exp()
        surrogate = torch.minimum(ratio * gain, ratio.clamp(1.0 - config.clip, 1.0 + config.clip) * gain)
        value_loss = (expert.critic(normal).squeeze(-1) - target).square().mean()
        loss = value_loss - surrogate.mean() - self._entropy_coef * log_std.sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(expert.parameters(), config.grad_clip_norm)
        self.optimiser.step()
        return {"surrogate": surrogate.mean().item(), "value_loss": value_loss.item()}

    @torch.no_grad()
    def _follow(self, before: Tensor, spread: Tensor, normal: Tensor) -> None:
        """Adapt the step length to the divergence from the policy that made the rollout."""
        mean, std = self.expert.actor(normal), self.expert.log_std.exp()
        apart = ((std / spread).square() + ((mean - before) / spread).square() - 1.0) * 0.5
        divergence = float((apart - (std / spread).log()).sum(-1).mean())
        if divergence > 2.0 * self.config.desired_kl:
            self.lr = max(1e-5, self.lr / 1.5)
        elif divergence < 0.5 * self.config.desired_kl:
            self.lr = min(1e-2, self.lr * 1.5)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the expert."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "lr": self.lr,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.lr = float(state["lr"])
        self.generator.set_state(state["generator"])


class Critic(nn.Module):
    """The value of a policy that is not the expert's, on privileged observations (..., P).

    normaliser: an expert's, which stays as it is. It learns on the scale of its returns, as an expert does.
    """

    def __init__(
        self, normaliser: ObservationNormaliser, observation_dim: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        self._normaliser = (normaliser,)  # not a part of this module
        self.network = _network(observation_dim, hidden, 1, 1.0)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.mean: Tensor
        self.std: Tensor

    def normal(self, observation: Tensor) -> Tensor:
        """Observations (..., P), each entry on the scale 1."""
        return self._normaliser[0](observation)

    def forward(self, observation: Tensor) -> Tensor:
        """Discounted return (...) of acting on, reward units."""
        return self.network(self.normal(observation)).squeeze(-1) * self.std + self.mean


@dataclass(frozen=True)
class CriticConfig:
    """How a policy that acts is valued. Field metadata: unit and reason."""

    hidden: tuple[int, ...] = setting((256, 256), unit="units", why="widths, ELU between")
    discount: float = setting(
        0.97,
        above=0,
        high=1,
        unit="per decision",
        why="foresight of 0.7 s at 50 Hz: what a plan cannot change is left out",
    )
    trace: float = setting(0.95, low=0, high=1, why="lambda of the returns: bias against variance")
    lr: float = setting(5e-4, above=0, unit="per update", why="Adam step")
    epochs: int = setting(4, low=1, why="passes over a rollout")
    minibatches: int = setting(4, low=1, why="gradient steps per pass")
    grad_clip_norm: float = setting(1.0, above=0, unit="gradient norm", why="as the expert's")

    def __post_init__(self) -> None:
        check_fields(self)


_FEWEST = 2  # returns that have a spread


class CriticLearner:
    """Fits a `Critic` to the policy that acts, by lambda-returns of its rollouts."""

    def __init__(self, critic: Critic, config: CriticConfig, generator: torch.Generator) -> None:
        self.critic, self.config, self.generator = critic, config, generator
        self.optimiser = torch.optim.Adam(critic.network.parameters(), lr=config.lr, fused=True)

    def update(self, experience: Experience, followed: Tensor) -> float:
        """Epochs over one rollout; `followed` as in `generalised_advantages`.

        Returns the share of the returns' variance that the values explained beforehand; 0, and nothing is
        learned, where hardly any action was the policy's.
        """
        critic, config = self.critic, self.config
        if int(followed.sum()) < _FEWEST:
            return 0.0
        advantage = generalised_advantages(experience, config.discount, config.trace, followed)
        kept = followed.flatten()
        returns = (advantage + experience.value).flatten()[kept]
        explained = 1.0 - float(advantage.flatten()[kept].var() / returns.var().clamp(min=1e-8))
        self._rescale(returns)
        target = (returns - critic.mean) / critic.std
        normal = critic.normal(experience.observation.flatten(0, 1)[kept])
        for index in minibatches(len(target), config.epochs, config.minibatches, self.generator):
            loss = (critic.network(normal[index]).squeeze(-1) - target[index]).square().mean()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(critic.network.parameters(), config.grad_clip_norm)
            self.optimiser.step()
        return explained

    def _rescale(self, returns: Tensor) -> None:
        last = self.critic.network[-1]
        assert isinstance(last, nn.Linear)
        rescale(last, self.critic.mean, self.critic.std, returns)

    def state_dict(self) -> dict[str, Any]:
        """Critic and optimiser."""
        return {"critic": self.critic.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.critic.load_state_dict(state["critic"])
        self.optimiser.load_state_dict(state["optimiser"])
