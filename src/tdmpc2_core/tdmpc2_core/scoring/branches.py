"""Branches: action sequences played from one saved state of the simulator, beside a model's forecast of them.

Each candidate of H decisions starts from the same state with the same random numbers; after it the policy
prior acts until a fixed time. What differs between two branches is what the candidates did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmpc2_core.agent import Agent
from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.envs.robot.batch import BatchEnv, BatchState
from tdmpc2_core.imagine.rollout import Rollout
from tdmpc2_core.planning import PlannerConfig, make_planner
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.robots import Embodiment

Array = NDArray[np.floating[Any]]
Policy = Callable[[Array], Array]
"""Actions (N, A) of observations (N, O), without state of its own: the policy prior's mode."""

PRIOR, MODE, SAMPLE, ELITE = "prior", "mode", "sample", "elite"
WHITE, HELD = "white", "held"


@dataclass(frozen=True)
class BranchConfig:
    """Which branches are compared.

    Raises:
        ValueError: a value outside its range, or fewer candidates than the groups need.
    """

    candidates: int = setting(
        64, low=8, why="per state: the prior, its mode in the model, samples, elites, and noise"
    )
    seconds: float = setting(2.0, above=0, unit="s", why="length of a branch; the prior acts after the plan")
    distances: tuple[float, ...] = setting(
        (0.02, 0.05, 0.1, 0.3), above=0, unit="normalised action", why="spread of the noise on the prior"
    )
    samples: int = setting(6, low=0, unit="candidates", why="sequences of the policy, drawn in the model")
    elites: int = setting(8, low=0, unit="candidates", why="best sequences that the planner's search met")
    noise_seeds: int = setting(2, low=2, why="repetitions; a choice is judged under another")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.noise < 2 * len(self.distances):
            raise ValueError(
                f"candidates is {self.candidates}, must be at least "
                f"{2 + self.samples + self.elites + 2 * len(self.distances)}: the prior and its mode, "
                f"{self.samples} samples, {self.elites} elites, white and held noise at each distance"
            )

    @property
    def noise(self) -> int:
        """Candidates that are the prior's actions with noise."""
        return self.candidates - 2 - self.samples - self.elites


class Start(NamedTuple):
    """A saved state of an environment, and the observation (O,) that was made in it."""

    state: Any
    observation: Array


class Lanes(Protocol):
    """Copies of one environment that can all be put into one state."""

    count: int

    def start(self, state: Any, seed: int, count: int) -> None:
        """Put the first `count` copies into a state, with equal random numbers from `seed` on."""
        ...

    def step(self, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Observations (N, O), rewards (N,), terminated (N,) of actions (N, A) for the copies in use.

        A copy that has terminated stays so, with reward 0, whatever it does.
        """
        ...


class RobotLanes:
    """`Lanes` of one robot, for states of a batch of one; they hold the command of the state."""

    def __init__(self, embodiment: Embodiment, count: int) -> None:
        self.count = count
        self._embodiment = steady(embodiment)
        self._batches: dict[int, BatchEnv] = {}  # by the number of copies in use
        self._ended = np.zeros(0, dtype=bool)

    def start(self, state: BatchState, seed: int, count: int) -> None:
        """See `Lanes.start`."""
        if count not in self._batches:
            self._batches[count] = BatchEnv(self._embodiment, count)
            self._batches[count].max_steps = sys.maxsize
        batch = self._batches[count]
        batch.restore(state.take([0] * count))
        fresh = np.random.default_rng(seed).bit_generator.state
        for robot in batch.robots:
            robot.rng.bit_generator.state = fresh
        self._ended = np.zeros(count, dtype=bool)

    def step(self, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """See `Lanes.step`."""
        result = self._batches[len(actions)].step(actions)
        rewards = np.where(self._ended, 0.0, result.reward)
        self._ended = self._ended | result.terminated
        return result.final_observation, rewards, self._ended


def steady(embodiment: Embodiment, hold: bool = True) -> Embodiment:
    """The embodiment without random pushes and without commands to stand; `hold`: nor with new commands."""
    content = embodiment.to_dict()
    content["randomisation"].pop("push_interval", None)
    if content.get("command"):
        content["command"]["stand_fraction"] = 0.0
        if hold:
            content["command"]["resample_seconds"] = 1e6
    return Embodiment.from_dict(content, directory=embodiment.directory)


_WALK = (1.5, 4.5)  # s of walking before a state is saved: steady, and before the next command
_REACH = (0.1, 1.0)  # s after a new goal
_REACTION = 2  # decisions after a push, so that the observation shows it


def robot_starts(
    prior: Policy, embodiment: Embodiment, count: int, push: float = 0.0, seed: int = 0
) -> list[Start]:
    """States of `count` episodes of the prior, with sensor noise and randomisation.

    A legged robot walks on a drawn command, an arm is on the way to its second goal.

    Args:
        push: largest push just before the state, in multiples of the embodiment's own; each is between half
            of it and all. 0: none.
    """
    moving = steady(embodiment, hold=False)
    return [_start(prior, BatchEnv(moving, 1, seed + index), push, seed + index) for index in range(count)]


def _start(prior: Policy, env: BatchEnv, push: float, seed: int) -> Start:
    rng, spec = np.random.default_rng([seed, 1]), env.embodiment.randomisation
    goal = env.embodiment.pose_command
    seconds = goal.resample_seconds + rng.uniform(*_REACH) if goal else rng.uniform(*_WALK)
    decisions = round(seconds * env.embodiment.control_rate)
    wait = decisions + (_REACTION if push else 0)
    observations, step, simulation = env.reset(), 0, env.robots[0].simulation
    while step < wait:
        if push and step == decisions:
            direction = rng.normal(size=2 if simulation.floating else 3)
            direction *= push * rng.uniform(0.5, 1.0) / np.linalg.norm(direction)
            if simulation.floating:
                simulation.push(spec.push_velocity * direction)
            else:
                simulation.push_tool(spec.push_force * direction, spec.push_seconds)
        result = env.step(prior(observations))
        observations, step = result.observation, 0 if result.terminated[0] else step + 1
    return Start(env.state(), observations[0])


class Proposals(NamedTuple):
    """Sequences that a planner looks at: the prior's mode (H, A) in the model, samples of the policy
    (P, H, A), the best of a search (K, H, A) and the plan (H, A) that the planner gives back."""

    mode: Array
    samples: Array
    elites: Array
    plan: Array


class Forecaster(Protocol):
    """The model's side: what it proposes from an observation (O,), and what it expects of it."""

    horizon: int
    discount: float

    def prior(self, observations: Array) -> Array:
        """The policy prior's mode (N, A) for observations (N, O)."""
        ...

    def propose(self, observation: Array, samples: int, elites: int) -> Proposals:
        """Sequences of the policy and of the planner."""
        ...

    def score(self, observation: Array, actions: Array) -> Array:
        """The planner's score (N,) of sequences (N, H, A)."""
        ...

    def rewards(self, observation: Array, actions: Array) -> Array:
        """The model's rewards (N, H) along sequences (N, H, A)."""
        ...

    def values(self, observations: Array) -> Array:
        """The value (N,) that the model gives to observations (N, O) when the prior acts."""
        ...


class _Recorder:
    """A rollout that keeps what it is asked to score."""

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.encode, self.prior = rollout.encode, rollout.prior

    def returns(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: Sequence[int], task: Tensor | None
    ) -> Tensor:
        """See `Rollout.returns`."""
        values = self._rollout.returns(latent, actions, noise, heads, task)
        self.seen.append((actions[:, 0].clone(), values[0].clone()))
        return values

    def best(self, count: int) -> Tensor:
        """The `count` best sequences (K, H, A) of the plan."""
        actions = torch.cat([actions for actions, _ in self.seen], 1)
        values = torch.cat([values for _, values in self.seen])
        return actions[:, values.topk(count).indices].transpose(0, 1)


class AgentForecaster:
    """`Forecaster` of an agent under planner settings; the method `policy` is taken as the search beside it.

    Sequences are scored by the search's own rollout, with all value heads.
    """

    def __init__(self, agent: Agent, config: PlannerConfig | None = None, seed: int = 0) -> None:
        self.config = searching(config or agent.planner_config)
        self.horizon, self.discount = self.config.horizon, agent.discount
        self._model = agent.model
        self._planner = agent.fork(self.config, seed)
        self._prior = agent.fork(replace(self.config, method="policy", horizon=1), seed)
        self._generator = torch.Generator(agent.device).manual_seed(seed)
        self._search = search_of(agent, self.config, seed)
        self.rollout = self._search.rollout
        self._heads = range(agent.model.config.num_q)

    def prior(self, observations: Array) -> Array:
        """See `Forecaster.prior`."""
        return self._prior.act(observations, evaluate=True).action

    @torch.inference_mode()
    def propose(self, observation: Array, samples: int, elites: int) -> Proposals:
        """See `Forecaster.propose`."""
        latent = self._latent(observation)
        size = self._model.config.action_dim
        noise = self._noise(self.horizon, 1, samples + 1, size)
        noise[:, :, 0] = 0.0  # the first is the mode
        drawn = self.rollout.prior(latent, noise, None)[:, 0].transpose(0, 1)
        recorder = _Recorder(self.rollout)
        self._search.rollout = recorder
        first = torch.ones(1, dtype=torch.bool, device=latent.device)
        self._search.plan(self._tensor(observation)[None], first, evaluate=True)
        self._search.rollout = self.rollout
        plan = self._planner.plan(observation, now=0.0, first=True).actions
        mode, some, best = (x.cpu().numpy() for x in (drawn[0], drawn[1:], recorder.best(elites)))
        return Proposals(mode, some, best, plan)

    @torch.inference_mode()
    def score(self, observation: Array, actions: Array) -> Array:
        """See `Forecaster.score`."""
        sequences = self._tensor(actions).transpose(0, 1).unsqueeze(1).contiguous()
        noise = self._noise(1, len(actions), actions.shape[2])
        latent = self._latent(observation)
        mode = self.rollout.prior(latent, torch.zeros_like(sequences[:, :, :1]), None)
        if self.config.trust_region.valued_mode:
            noise = torch.zeros_like(noise)
        values = self._search.score(latent, sequences, noise, self._heads, None, mode)
        return values[0].cpu().numpy()

    @torch.inference_mode()
    def rewards(self, observation: Array, actions: Array) -> Array:
        """See `Forecaster.rewards`."""
        z, rewards = self._latent(observation).expand(len(actions), -1), []
        for action in self._tensor(actions).transpose(0, 1):
            rewards.append(self._model.reward(z, action).squeeze(-1))
            z = self._model.next(z, action)
        return torch.stack(rewards, 1).cpu().numpy()

    @torch.inference_mode()
    def values(self, observations: Array) -> Array:
        """See `Forecaster.values`."""
        z = self._model.encode(self._tensor(observations))
        return self._model.q_values(z, self._model.policy(z).mean).mean(0).squeeze(-1).cpu().numpy()

    def _latent(self, observation: Array) -> Tensor:
        return self.rollout.encode(self._tensor(observation)[None], None)

    def _tensor(self, values: Array) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values, np.float32), device=self._generator.device)

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self._generator.device)


def searching(config: PlannerConfig) -> PlannerConfig:
    """The settings themselves, or for the method `policy` those of the search that it stands in for."""
    return replace(config, method="mppi") if config.method == "policy" else config


def search_of(agent: Agent, config: PlannerConfig, seed: int = 0) -> MPPI:
    """The sampling search with these settings, whatever their method."""
    generator = torch.Generator(device=agent.device).manual_seed(seed)
    planner = make_planner(agent.model, replace(config, method="mppi"), agent.discount, generator)
    assert isinstance(planner, MPPI)
    return planner


class Played(NamedTuple):
    """N branches of T decisions.

    Attributes:
        rewards: (N, T), 0 after the end of an episode.
        ends: (N, O) observations after H decisions; `ended` (N,): the episode was over by then.
        fallen: (N,) over at the end of the branch.
        first: (H, A) what the first branch did.
    """

    rewards: Array
    ends: Array
    ended: NDArray[np.bool_]
    fallen: NDArray[np.bool_]
    first: Array


def play_branches(
    lanes: Lanes, start: Start, seed: int, actions: Array, prior: Policy, steps: int, closed: int = 0
) -> Played:
    """Play sequences (N, H, A) from a start, then the prior until `steps` decisions are over.

    closed: this many of the first branches are the prior all the way, whatever their sequences.
    """
    if len(actions) > lanes.count:
        head = play_branches(lanes, start, seed, actions[: lanes.count], prior, steps, closed)
        rest = play_branches(
            lanes, start, seed, actions[lanes.count :], prior, steps, max(0, closed - lanes.count)
        )
        pairs = zip(head[:4], rest[:4], strict=True)
        rewards, ends, ended, fallen = (np.concatenate(pair) for pair in pairs)
        return Played(rewards, ends, ended, fallen, head.first)
    count, horizon = actions.shape[:2]
    lanes.start(start.state, seed, count)
    observations = np.repeat(start.observation[None], count, 0)
    rewards, first = np.zeros((count, steps)), np.zeros(actions.shape[1:])
    ended = np.zeros(count, dtype=bool)
    ends, ended_by_then = observations, ended
    for step in range(steps):
        if step < horizon:
            chosen = np.array(actions[:, step], dtype=np.float32)
            if closed:
                chosen[:closed] = prior(observations[:closed])
            first[step] = chosen[0]
        else:
            chosen = prior(observations)
        observations, rewards[:, step], ended = lanes.step(chosen)
        if step < horizon:
            ends, ended_by_then = observations, ended
        if ended.all():
            break
    return Played(rewards, ends, ended_by_then, ended, first)


@dataclass(frozen=True)
class Branches:
    """What became of S states x N sequences under R noise seeds, and what the model expected.

    The first sequence is the prior, which acts in closed loop; the second its mode in the model.

    Attributes:
        kinds: N names: prior, mode, sample, elite, `white 0.05`, `held 0.05`, ..., then plans by their names.
        candidates: how many of them are candidates; the plans after them are judged one by one.
        actions: (S, N, H, A).
        rewards: (S, R, N, T) true rewards per decision, 0 after a fall.
        fallen: (S, R, N) whether the branch ended in a terminal state.
        ends: (S, R, N) the model's value of the true observation after H decisions; 0 after a fall.
        predicted: (S, N, H) the model's rewards.
        scores: (S, N) the planner's score.
        discount: per decision.
    """

    kinds: tuple[str, ...]
    candidates: int
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    fallen: NDArray[np.bool_]
    ends: NDArray[np.float64]
    predicted: NDArray[np.float64]
    scores: NDArray[np.float64]
    discount: float

    @property
    def horizon(self) -> int:
        """Decisions H of a sequence."""
        return int(self.actions.shape[2])

    @property
    def returns(self) -> NDArray[np.float64]:
        """True discounted returns (S, R, N)."""
        return discounted(self.rewards, self.discount)

    @property
    def distance(self) -> NDArray[np.float64]:
        """Root mean square (S, N) of what a sequence differs from the prior's actions."""
        return np.sqrt(np.square(self.actions - self.actions[:, :1]).mean((2, 3)))


def discounted(rewards: Array, discount: float) -> NDArray[np.float64]:
    """Sum over the last axis of discount^t times the rewards."""
    return np.asarray(rewards @ discount ** np.arange(rewards.shape[-1]), np.float64)


def run_branches(
    lanes: Lanes,
    starts: Sequence[Start],
    forecaster: Forecaster,
    control_rate: float,
    config: BranchConfig | None = None,
    plans: Mapping[str, Policy] | None = None,
    seed: int = 0,
    progress: Callable[[Sequence[Start]], Sequence[Start]] = lambda starts: starts,
) -> Branches:
    """Play the candidates of every start.

    Args:
        plans: further planners by name, observation (O,) to plan (H, A); the forecaster's own is `plan`.
        progress: wraps the starts, as tqdm does.
    """
    config = config or BranchConfig()
    steps = round(config.seconds * control_rate)
    planners, rows = plans or {}, []
    for index, start in enumerate(progress(starts)):
        seeds = [int(x) for x in np.random.SeedSequence([seed, index]).generate_state(config.noise_seeds)]
        blank = np.zeros((1, forecaster.horizon, forecaster.prior(start.observation[None]).shape[1]))
        base = play_branches(
            lanes, start, seeds[0], blank, forecaster.prior, forecaster.horizon, closed=1
        ).first
        found = forecaster.propose(start.observation, config.samples, config.elites)
        noisy, kinds = _noisy(base, config, np.random.default_rng([seed, index]))
        extra = [found.plan, *(planner(start.observation) for planner in planners.values())]
        parts = [base[None], found.mode[None], found.samples, found.elites, noisy, np.stack(extra)]
        actions = np.concatenate(parts).astype(np.float32)
        played = [play_branches(lanes, start, s, actions, forecaster.prior, steps, closed=1) for s in seeds]
        rows.append(
            {
                "actions": actions,
                "rewards": np.stack([branch.rewards for branch in played]),
                "fallen": np.stack([branch.fallen for branch in played]),
                "ends": np.stack([np.where(b.ended, 0.0, forecaster.values(b.ends)) for b in played]),
                "predicted": forecaster.rewards(start.observation, actions),
                "scores": forecaster.score(start.observation, actions),
            }
        )
    candidates = [PRIOR, MODE, *[SAMPLE] * config.samples, *[ELITE] * config.elites, *kinds]
    columns: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    everything = (*candidates, "plan", *planners)
    return Branches(kinds=everything, candidates=len(candidates), discount=forecaster.discount, **columns)


def _noisy(base: Array, config: BranchConfig, rng: np.random.Generator) -> tuple[Array, list[str]]:
    """The prior's actions (H, A) with noise (N, H, A), white and held in turn, and their kinds."""
    horizon, size = base.shape
    sequences, kinds = [], []
    for index in range(config.noise):
        spread = config.distances[index // 2 % len(config.distances)]
        kind, rows = ((WHITE, horizon), (HELD, 1))[index % 2]
        sequences.append(np.clip(base + spread * rng.normal(size=(rows, size)), -1.0, 1.0))
        kinds.append(f"{kind} {spread:g}")
    return np.stack(sequences), kinds


class TrueRollout:
    """A search's rollout whose returns are those of the simulator, from one start under one noise seed."""

    def __init__(
        self,
        rollout: Rollout,
        lanes: Lanes,
        start: Start,
        seed: int,
        prior: Policy,
        steps: int,
        discount: float,
    ) -> None:
        self.encode, self.prior = rollout.encode, rollout.prior
        self._play = lambda actions: play_branches(lanes, start, seed, actions, prior, steps)
        self._discount = discount

    def returns(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: Sequence[int], task: Tensor | None
    ) -> Tensor:
        """See `Rollout.returns`; for one robot, and the prior's mode in place of the value."""
        played = self._play(actions[:, 0].transpose(0, 1).cpu().numpy())
        return latent.new_tensor(discounted(played.rewards, self._discount))[None]


@dataclass(frozen=True)
class Oracle:
    """What a search gains that is scored in the simulator instead of in the model.

    Attributes:
        horizon: decisions that are searched.
        plan: (S,) return of the search's plan under noise that it has not seen; `prior`: of the prior there.
    """

    horizon: int
    plan: NDArray[np.float64]
    prior: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """(S,) return of the plan less that of the prior."""
        return self.plan - self.prior


def run_oracle(
    agent: Agent,
    lanes: Lanes,
    starts: Sequence[Start],
    config: PlannerConfig,
    control_rate: float,
    seconds: float = 2.0,
    seed: int = 0,
    progress: Callable[[Sequence[Start]], Sequence[Start]] = lambda starts: starts,
) -> Oracle:
    """Search with these settings (samples, elites, temperature, iterations, horizon) in the simulator."""
    search, steps = search_of(agent, config, seed), round(seconds * control_rate)
    prior, rollout = AgentForecaster(agent, config, seed).prior, search.rollout
    found = []
    for index, start in enumerate(progress(starts)):
        known, unknown = (int(x) for x in np.random.SeedSequence([seed, index, 1]).generate_state(2))
        search.rollout = TrueRollout(rollout, lanes, start, known, prior, steps, agent.discount)
        observation = torch.as_tensor(start.observation[None], dtype=torch.float32, device=agent.device)
        first = torch.ones(1, dtype=torch.bool, device=agent.device)
        plan = search.plan(observation, first, evaluate=True).mean[0].cpu().numpy()
        played = play_branches(lanes, start, unknown, np.stack([plan, plan]), prior, steps, closed=1)
        found.append(discounted(played.rewards, agent.discount))
    return Oracle(config.horizon, *np.transpose(found)[::-1])
