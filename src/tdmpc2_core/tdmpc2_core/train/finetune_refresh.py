"""The mode `refresh` of fine-tuning: prior and values learn again, in a simulation fitted to the robot.

A recording tells how the robot moves (`tdmpc2 identify`); what to do about it is learned where decisions cost
nothing. First the prior improves by what comes of its actions (`learning/prior.py`); following the command
counts more there than in the robot's reward, where a policy gives it up first. Then the prior is held, and
reward, value, termination and dynamics learn what it meets, with the losses of `tdmpc2 student`. The encoder
stays. Some of the robots are the nominal one, which a fit that is wrong leaves unharmed.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.bursts import BurstNoise
from tdmpc2_core.envs.robot.mixed import MixedEnv, MixedStep
from tdmpc2_core.files import write_torch
from tdmpc2_core.learning.expert import Critic, CriticLearner, Experience, generalised_advantages
from tdmpc2_core.learning.learner import Learner, PrivilegedTargets
from tdmpc2_core.learning.prior import PriorLearner
from tdmpc2_core.learning.replay import ReplayBuffer
from tdmpc2_core.model.encoder import ObservationNormaliser
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.rewards import REWARD_TERMS
from tdmpc2_core.train.finetune_config import FineTuneConfig, Mode

_FOLLOWING = {"velocity_command", "tool_distance", "tool_angle"}  # what rewards of following read
_LEARNED = ("dynamics", "reward_head", "termination_head", "q_heads", "policy_head")


def eager(robot: Embodiment, factor: float) -> Embodiment:
    """The robot, to which following its command is worth `factor` as much."""
    content = robot.to_dict()
    for term in content["reward"]["terms"]:
        if _FOLLOWING.intersection(REWARD_TERMS[term["name"]].reads):
            term["weight"] *= factor
    return Embodiment.from_dict(content, directory=robot.directory)


class RefreshTrial:
    """What `Trial` is for the other modes; an update is a rollout of all robots and what is learned from it.

    Gone on with from its file, it makes its decisions anew.

    Args:
        agent: the parent; its model is left as it is.
        fitted: the robot as it was identified.
        folder: of the run.

    Attributes:
        total: updates to do.
        looks: (updates, mean reward per decision since the last look).
    """

    mode: Mode = "refresh"

    def __init__(self, agent: Agent, fitted: Embodiment, config: FineTuneConfig, folder: Path) -> None:
        assert agent.embodiment is not None
        self.config, self.path, self._parent = config, folder / f"{self.mode}.pt", agent
        self._own, self.total = config.refresh, config.refresh.rollouts + config.refresh.settling
        self.ended_by, self.looks = "", list[tuple[int, float]]()
        self._rewards = list[float]()
        self.model = deepcopy(agent.model).requires_grad_(False)
        self._robots = fitted, agent.embodiment
        state = torch.load(self.path, weights_only=True) if self.path.exists() else {}
        self._resumes = int(state.get("resumes", -1)) + 1
        self._seed = int(np.random.default_rng([config.seed, self._resumes]).integers(2**31))
        self.generator = torch.Generator().manual_seed(self._seed)
        self.prior = PriorLearner(self.model, self._own.prior, self.generator)
        self._learner: Learner | None = None
        self.updates = int(state.get("updates", 0))
        self._begin()
        if state:
            self._load(state)

    @property
    def _settling(self) -> bool:
        return self.updates >= self._own.rollouts

    def _begin(self) -> None:
        """The robots of a stage, and a critic of their rewards that knows nothing yet."""
        own, factor = self._own, 1.0 if self._settling else self._own.following
        fitted, usual = (eager(robot, factor) for robot in self._robots)
        nominal = round(own.nominal * own.robots)
        seed = self._seed + self._settling
        self._env = MixedEnv(
            [(fitted, own.robots - nominal), (usual, nominal)], seed, torch.get_num_threads()
        )
        self._noise = BurstNoise(self._env.count, self.config.simulation.bursts, seed)
        self._normaliser = ObservationNormaliser(self._env.privileged_dim, enabled=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # of the critic's first weights
            critic = Critic(self._normaliser, self._env.privileged_dim, own.critic.hidden)
        config = replace(own.critic, discount=self._parent.discount)
        self.critic = CriticLearner(critic, config, self.generator)
        if self._settling:
            self._learner, self._replay = self._make_learner(), self._make_replay()
        self._observed, self._privileged = (torch.from_numpy(rows) for rows in self._env.reset())

    # ---- one update ----
    def update(self) -> float:
        """One rollout and what it teaches; minus its mean reward."""
        experience, z, followed = self._roll_out()
        self.critic.update(experience, followed)
        done = self.updates - self._own.rollouts * self._settling
        if done >= self._own.warm_up and self._settling:
            self._settle()
        elif done >= self._own.warm_up:
            config = self.critic.config
            gain = generalised_advantages(experience, config.discount, config.trace).flatten()
            chosen, log_prob = experience.action.flatten(0, 1), experience.log_prob.flatten()
            self.prior.update(z.flatten(0, 1), chosen, log_prob, gain)
        self.updates += 1
        if self.updates == self._own.rollouts and self._own.settling:
            self._begin()
        reward = float(experience.reward[followed].mean())
        self._rewards.append(reward)
        return -reward

    @torch.no_grad()
    def _roll_out(self) -> tuple[Experience, Tensor, Tensor]:
        """Decisions of all robots, the latents (T, N, L) they were made on, and which the prior chose."""
        rows = list[dict[str, Tensor]]()
        critic = self.critic.critic
        for _ in range(self._own.decisions):
            observed, known = self._observed, self._privileged
            self._normaliser.update(known)
            z = self.model.encode(observed)
            wanted, quiet = self.model.policy(z).mean, torch.ones(self._env.count, dtype=torch.bool)
            action, log_prob = self.prior.explore(wanted)
            if self._settling:
                quiet = torch.from_numpy(~self._noise.active)
                action = torch.from_numpy(self._noise.disturb(wanted.numpy())).float()
            step = self._env.step(action.numpy())
            final = torch.from_numpy(step.final_privileged)
            if self._settling:
                self._remember(observed, action, wanted, known, step)
            self._noise.restart(step.terminated | step.truncated)
            rows.append(
                {
                    "observation": known,
                    "action": action,
                    "log_prob": log_prob,
                    "value": critic(known),
                    "reward": torch.from_numpy(step.reward).float(),
                    "terminated": torch.from_numpy(step.terminated),
                    "truncated": torch.from_numpy(step.truncated),
                    "timeout": critic(final),
                    "z": z,
                    "quiet": quiet,
                }
            )
            self._observed = torch.from_numpy(step.observation)
            self._privileged = torch.from_numpy(step.privileged)
        columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        z, followed = columns.pop("z"), columns.pop("quiet")
        return Experience(**columns, last_value=critic(self._privileged)), z, followed

    # ---- the model learns what the prior meets ----
    def _make_learner(self) -> Learner:
        for name in _LEARNED:
            part = getattr(self.model, name)
            if part is not None:
                part.requires_grad_(True)
        critic = self.critic.critic
        targets = PrivilegedTargets(critic, critic.normal, 0.0)
        config = replace(self._own.learner, discount=self._parent.discount)
        return Learner(self.model, config, self.generator, privileged=targets)

    def _make_replay(self) -> ReplayBuffer:
        rows = (self._own.settling + 1) * (self._own.decisions + 1)  # and a closing row per rollout at most
        sizes = self.model.config.obs_dim, self.model.config.action_dim
        known = self._env.privileged_dim
        return ReplayBuffer(self._env.count, rows, *sizes, generator=self.generator, privileged_dim=known)

    def _settle(self) -> None:
        assert self._learner is not None
        config = self._learner.config
        for _ in range(self._own.updates):
            self._learner.update(self._replay.sample(config.batch_size, config.window))

    def _remember(
        self, observed: Tensor, action: Tensor, wanted: Tensor, known: Tensor, step: MixedStep
    ) -> None:
        """Into the replay: one decision of all robots, and the ends of their episodes."""
        reward, terminated = torch.from_numpy(step.reward).float(), torch.from_numpy(step.terminated)
        spread = torch.full_like(wanted, self._own.prior_std)
        self._replay.add_step(observed, action, reward, terminated, wanted, spread, known)
        lanes = np.flatnonzero(step.terminated | step.truncated)
        if len(lanes):
            ends = step.final_observation[lanes], step.final_privileged[lanes]
            self._replay.close_lanes(lanes, *(torch.from_numpy(rows) for rows in ends))

    # ---- what the run asks of a trial ----
    @property
    def due(self) -> bool:
        """Whether it is time for `check` and `save`."""
        return self.updates % self._own.check_every == 0 or self.updates >= self.total

    def check(self) -> None:
        """Note the rewards since the last look; end what has done all its updates."""
        if self._rewards:
            self.looks.append((self.updates, float(np.mean(self._rewards))))
            self._rewards.clear()
        if not self.ended_by and self.updates >= self.total:
            self.ended_by = "updates"

    def agent(self) -> Agent:
        """The parent's planner on the model as it is."""
        return self._parent.with_model(deepcopy(self.model).requires_grad_(True), self.config.seed)

    def save(self) -> None:
        """Write everything that going on needs, whole or not at all. Raises OSError."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "critic": self.critic.state_dict(),
            "normaliser": self._normaliser.state_dict(),
            "prior": self.prior.state_dict(),
            "learner": None if self._learner is None else self._learner.state_dict(),
            "updates": self.updates,
            "looks": self.looks,
            "ended_by": self.ended_by,
            "resumes": self._resumes,
        }
        write_torch(self.path, state)

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.critic.load_state_dict(state["critic"])
        self._normaliser.load_state_dict(state["normaliser"])
        self.prior.load_state_dict(state["prior"])
        if self._learner is not None:
            self._learner.load_state_dict(state["learner"])
        self.ended_by = state["ended_by"]
        self.looks = [(int(updates), float(reward)) for updates, reward in state["looks"]]
        if self.ended_by in ("request", "time") or self.updates < self.total:
            self.ended_by = ""  # asked to go on
