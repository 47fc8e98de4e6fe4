"""Branch ranking on a made-up world whose model is exact, and with the model's values shuffled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planning_support import small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring import branch_ranking as ranking
from tdmpc2_core.scoring.branches import (
    AgentForecaster,
    BranchConfig,
    Branches,
    Proposals,
    RobotLanes,
    Start,
    play_branches,
    robot_starts,
    run_branches,
    run_oracle,
    steady,
)

SIZE, HORIZON, DISCOUNT, RATE = 3, 4, 0.95, 10.0
GOAL = np.array([0.3, -0.2, 0.1])


class Line:
    """x <- 0.9 x + a, reward -|x + a / 2 - goal|^2 plus a noise that all copies share."""

    count = 70

    def __init__(self, noise: float = 0.0, limit: float = 9.0) -> None:
        self.noise, self.limit = noise, limit  # a state beyond the limit ends the episode

    def start(self, state: Any, seed: int, count: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.x, self.ended = np.repeat(state[None], count, 0), np.zeros(count, dtype=bool)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward = line_reward(self.x, actions)
        shift = self.noise * self.rng.normal(size=SIZE)
        self.x = np.where(self.ended[:, None], self.x, line_next(self.x, actions) + shift)
        reward = np.where(self.ended, 0.0, reward)
        self.ended = self.ended | (np.abs(self.x).max(1) > self.limit)
        return self.x.copy(), reward, self.ended.copy()


def line_next(x: np.ndarray, action: np.ndarray) -> np.ndarray:
    return 0.9 * x + action


def line_reward(x: np.ndarray, action: np.ndarray) -> np.ndarray:
    return -np.square(x + 0.5 * action - GOAL).sum(-1)


class Exact:
    """The world itself as a model, until two seconds are over; `shuffle` gives every score to another."""

    horizon, discount = HORIZON, DISCOUNT

    def __init__(self, shuffle: bool = False) -> None:
        self.rng, self.shuffle = np.random.default_rng(7), shuffle

    def prior(self, observations: np.ndarray) -> np.ndarray:
        return np.clip(0.3 * (GOAL - observations), -1.0, 1.0).astype(np.float32)

    def propose(self, observation: np.ndarray, samples: int, elites: int) -> Proposals:
        mode, x = [], observation[None]
        for _ in range(HORIZON):
            mode.append(self.prior(x)[0])
            x = line_next(x, mode[-1])
        some = np.stack(mode) + 0.4 * self.rng.normal(size=(samples + elites, HORIZON, SIZE))
        many = np.clip(np.stack(mode) + 0.4 * self.rng.normal(size=(200, HORIZON, SIZE)), -1.0, 1.0)
        best = many[self.score(observation, many).argmax()]
        return Proposals(np.stack(mode), some[:samples], some[samples:], best)

    def score(self, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
        total, x = self.rewards(observation, actions) @ DISCOUNT ** np.arange(HORIZON), observation
        for step in range(HORIZON):
            x = line_next(x, actions[:, step])
        values = self.values(x)
        if self.shuffle:
            return self.rng.permutation(total + values)
        return total + DISCOUNT**HORIZON * values

    def rewards(self, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
        x, found = np.repeat(observation[None], len(actions), 0), []
        for step in range(HORIZON):
            found.append(line_reward(x, actions[:, step]))
            x = line_next(x, actions[:, step])
        return np.stack(found, 1)

    def values(self, observations: np.ndarray) -> np.ndarray:
        total, x = np.zeros(len(observations)), observations
        for step in range(round(2.0 * RATE) - HORIZON):
            action = self.prior(x)
            total += DISCOUNT**step * line_reward(x, action)
            x = line_next(x, action)
        return total


def starts(count: int = 12) -> list[Start]:
    rng = np.random.default_rng(3)
    return [Start(x, x.astype(np.float32)) for x in rng.uniform(-1.0, 1.0, (count, SIZE))]


def run(shuffle: bool = False, noise: float = 0.0, count: int = 12) -> Branches:
    return run_branches(Line(noise), starts(count), Exact(shuffle), RATE)


def test_an_exact_model_ranks_like_the_world_and_picks_the_best() -> None:
    branches = run()
    found = ranking.rank(branches)
    for name in (ranking.CEILING, ranking.SCORE, ranking.TRUE_REWARDS, ranking.TRUE_VALUE):
        for group in ("near", "all", "0.02", "0.3", "elite"):
            assert found.correlation[name][group].mean == pytest.approx(1.0, abs=2e-3), (name, group)
    # candidates leave the prior's way: rewards alone, without what follows, say less
    assert found.correlation["true rewards of 3 decisions"]["all"].mean < 0.99
    pick = branches.scores[:, :64].argmax(1)
    assert (pick == branches.returns[:, 0, :64].argmax(1)).all()
    gains = found.gains["all"]
    assert gains.picked.mean == pytest.approx(gains.attainable.mean, rel=1e-3)
    assert gains.picked.mean > 0.01
    assert gains.expected.mean == pytest.approx(gains.picked.mean, rel=1e-3)
    assert gains.error.mean < 1e-3
    assert abs(gains.bias.mean) < 1e-3
    assert found.plans["plan"].true.mean == pytest.approx(found.plans["plan"].expected.mean, rel=1e-3)


def test_shuffled_scores_rank_nothing_and_expect_what_does_not_come() -> None:
    found = ranking.rank(run(shuffle=True, count=40))
    assert abs(found.correlation[ranking.SCORE]["all"].mean) < 0.06
    assert found.correlation[ranking.SCORE]["all"].low < 0.0 < found.correlation[ranking.SCORE]["all"].high
    assert found.correlation[ranking.TRUE_VALUE]["all"].mean == pytest.approx(1.0, abs=2e-3)
    gains = found.gains["all"]
    assert gains.picked.high < gains.attainable.low
    assert gains.expected.mean > gains.picked.mean
    assert gains.error.mean > 0.1


def test_noise_lowers_the_ceiling_and_the_attainable_gain_is_not_that_of_hindsight() -> None:
    branches = run(noise=0.1, count=30)
    found, true = ranking.rank(branches), branches.returns[..., :64] - branches.returns[..., :1]
    assert 0.2 < found.correlation[ranking.CEILING]["near"].mean < 0.999
    assert found.gains["all"].attainable.mean < true.max(2).mean()
    assert found.gains["all"].attainable.low <= found.gains["all"].attainable.mean


def test_branches_share_their_start_and_random_numbers_and_the_first_is_the_prior() -> None:
    branches, config = run(noise=0.2), BranchConfig()
    assert branches.kinds[0] == "prior" and branches.kinds[1] == "mode" and branches.kinds[-1] == "plan"
    assert len(branches.kinds) == config.candidates + 1 == branches.scores.shape[1]
    assert branches.rewards.shape == (12, 2, 65, 20)
    one = starts()[0]
    seed = int(np.random.SeedSequence([0, 0]).generate_state(2)[1])
    alone = play_branches(Line(0.2), one, seed, branches.actions[0, [5, 5]], Exact().prior, 20)
    assert alone.rewards[0] == pytest.approx(branches.rewards[0, 1, 5])
    assert (alone.rewards[0] == alone.rewards[1]).all()
    closed = play_branches(Line(0.2), one, seed, branches.actions[0, :1] + 9.0, Exact().prior, 20, closed=1)
    assert closed.rewards[0] == pytest.approx(branches.rewards[0, 1, 0])
    assert branches.distance[:, 0] == pytest.approx(0.0)
    white = [kind == "white 0.1" for kind in branches.kinds]
    assert branches.distance[:, white].mean() == pytest.approx(0.1, abs=0.02)
    held = branches.actions[:, [kind == "held 0.1" for kind in branches.kinds]] - branches.actions[:, :1]
    assert held[:, :, 0] == pytest.approx(held[:, :, -1], abs=1e-6)


def test_more_branches_than_lanes_are_played_in_turns() -> None:
    lanes, one = Line(0.2), starts()[0]
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (7, HORIZON, SIZE))
    whole = play_branches(lanes, one, 5, actions, Exact().prior, 20, closed=1)
    lanes.count = 3
    parts = play_branches(lanes, one, 5, actions, Exact().prior, 20, closed=1)
    for name in ("rewards", "ends", "ended", "fallen", "first"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name)), name


def test_a_fall_ends_the_rewards_and_has_no_value() -> None:
    actions = np.zeros((2, HORIZON, SIZE))
    actions[1] = 1.0  # leaves the limits in the third decision
    start = Start(np.full(SIZE, 0.5), np.full(SIZE, 0.5))
    played = play_branches(Line(limit=2.5), start, 0, actions, Exact().prior, 20)
    assert played.fallen.tolist() == [False, True] and played.ended.tolist() == [False, True]
    assert np.count_nonzero(played.rewards[0]) == 20 and np.count_nonzero(played.rewards[1]) == 3


def test_rank_correlation_is_spearmans() -> None:
    one = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert ranking.rank_correlation(one, np.exp(one)) == pytest.approx(1.0)
    assert ranking.rank_correlation(one, np.array([2.0, 1.0, 4.0, 3.0, 5.0])) == pytest.approx(0.8)
    # ranks 1.5 1.5 3 4 against 1 2 3 4: covariance 4.5, variances 4.5 and 5
    ties = ranking.rank_correlation(np.array([1.0, 1.0, 2.0, 3.0]), one[:4])
    assert ties == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))
    assert np.isnan(ranking.rank_correlation(one, np.ones(5)))


def test_too_few_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="candidates is 20, must be at least 24"):
        BranchConfig(candidates=20)


SETTINGS = PlannerConfig(
    horizon=3, num_samples=48, num_elites=8, num_pi_trajs=8, iterations=2, max_std=0.5, kernels="off"
)


@pytest.fixture()
def agent() -> Agent:
    return Agent(small_model(obs_dim=SIZE, action_dim=SIZE), SETTINGS, DISCOUNT)


def test_an_agents_forecast_is_its_planners(agent: Agent) -> None:
    forecaster = AgentForecaster(agent)
    observation = np.array([0.1, -0.4, 0.2], np.float32)
    proposals = forecaster.propose(observation, samples=5, elites=6)
    assert proposals.mode.shape == (3, SIZE)
    assert proposals.samples.shape == (5, 3, SIZE) and proposals.elites.shape == (6, 3, SIZE)
    assert proposals.mode[0] == pytest.approx(forecaster.prior(observation[None])[0], abs=1e-6)
    assert proposals.plan == pytest.approx(agent.fork(seed=0).plan(observation, 0.0, first=True).actions)
    # the model's rewards and the value at the end are the score, but for the terminal action's noise
    many = np.concatenate([proposals.elites, proposals.samples])
    scored = np.mean([forecaster.score(observation, many) for _ in range(200)], 0)
    assert scored.shape == (11,)
    assert scored[:6].min() > scored[6:].mean()
    assert forecaster.rewards(observation, many).shape == (11, 3)
    assert forecaster.values(observation[None]).shape == (1,)


def test_the_policys_search_stands_in_for_the_method_policy(agent: Agent) -> None:
    forecaster = AgentForecaster(agent, replace(SETTINGS, method="policy"))
    assert forecaster.config.method == "mppi"
    assert forecaster.propose(np.zeros(SIZE, np.float32), 2, 2).plan.shape == (3, SIZE)


def test_a_search_in_the_world_itself_beats_the_prior(agent: Agent) -> None:
    found = run_oracle(agent, Line(0.05), starts(8), SETTINGS, RATE)
    gain = ranking.estimate(found.gain)
    assert found.horizon == 3 and gain.low > 0.0
    model = run_branches(Line(0.05), starts(8), AgentForecaster(agent), RATE)
    plan = ranking.rank(model).plans["plan"]  # of an untrained model
    assert plan.true.mean < gain.mean
    assert run_oracle(agent, Line(0.05), starts(2), replace(SETTINGS, horizon=6), RATE).horizon == 6


def test_a_bundle_keeps_one_row_per_states_horizon_and_settings() -> None:
    found = ranking.rank(run(count=4))
    row = ranking.measured_row(found, "nominal", {"horizon": HORIZON})
    assert row["correlation near"] == pytest.approx(1.0, abs=2e-3) and row["count"] == 4
    assert row["sigma_D"] < 1e-3 and row["attainable gain"] > 0.0
    other = {"planner": "64 x 1", "return": 2.0}
    rows = ranking.with_rows([other, {**row, "count": 1}], [row])
    assert rows == [other, row]
    assert len(ranking.with_rows(rows, [{**row, "states": "pushed"}])) == 3


def swing(observations: np.ndarray) -> np.ndarray:
    """A deterministic act of any robot with 12 joints that depends on what it observes."""
    return np.clip(0.5 * observations[:, :12] - 0.1, -1.0, 1.0)


def test_robot_lanes_continue_a_saved_episode_and_share_their_random_numbers() -> None:
    robot = Embodiment.load("quadruped")
    (start,) = robot_starts(swing, robot, 1, push=1.0, seed=4)
    env, actions = BatchEnv(steady(robot), 1), np.random.default_rng(0).uniform(-0.3, 0.3, (6, 12))
    env.restore(start.state)
    env.robots[0].rng.bit_generator.state = np.random.default_rng(9).bit_generator.state
    alone = [env.step(action[None]) for action in actions]
    lanes = RobotLanes(robot, 3)
    for _ in range(2):  # whatever they did before
        lanes.start(start.state, 9, 3)
        for action, want in zip(actions, alone, strict=True):
            observations, rewards, ended = lanes.step(np.stack([action, action, -action]))
            assert (observations[:2] == want.final_observation).all()
            assert rewards[:2].tolist() == [want.reward[0]] * 2
            assert not ended.any() and not (observations[2] == want.final_observation[0]).all()
    lanes.start(start.state, 10, 1)  # other noise
    assert not (lanes.step(actions[:1])[0] == alone[0].final_observation).all()


def test_a_fallen_robot_earns_nothing_and_stays_fallen() -> None:
    robot = Embodiment.load("quadruped")
    (start,) = robot_starts(swing, robot, 1, seed=4)
    lanes, falls = RobotLanes(robot, 2), []
    lanes.start(start.state, 0, 2)
    for step in range(150):
        actions = np.zeros((2, 12))
        actions[1, [0, 3, 6, 9]] = (-1.0) ** (step // 5)  # sways
        actions[1, 1::3] = 1.0
        _, rewards, ended = lanes.step(actions)
        falls.append(ended[1])
        assert rewards[0] != 0.0 and not ended[0]
        assert len(falls) < 2 or not falls[-2] or (rewards[1] == 0.0 and falls[-1])
    assert falls[-1]


def test_a_push_precedes_the_state_and_the_command_is_held() -> None:
    robot = Embodiment.load("quadruped")
    calm, pushed = (robot_starts(swing, robot, 1, push, seed=1)[0] for push in (0.0, 5.0))
    speeds, env = [], BatchEnv(steady(robot), 1)
    for start in (calm, pushed):
        env.restore(start.state)
        speeds.append(np.linalg.norm(env.robots[0].simulation.base_velocity()[0][:2]))
    assert speeds[1] > speeds[0] + 0.2
    env.restore(calm.state)
    command = env.command
    for _ in range(round(6.0 * robot.control_rate)):  # longer than a command lasts in training
        env.step(np.zeros((1, 12)))
    assert command.any() and (env.command == command).all()
