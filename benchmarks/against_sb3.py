"""What a user would take otherwise: PPO and SAC of Stable-Baselines3 on a robot, beside the shipped bundle.

Both learn on the same simulated robots with what their sensors report, for the same wall time on the same
cores; evaluations do not count. All are then judged on the same commands or goals and seeds, with sensor
noise and randomisation. A run that is killed or given more minutes goes on. Needs the extra `comparison`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.config import check_fields, setting, to_mapping
from tdmpc2_core.envs.protocol import StepResult
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.files import replacing, write_json
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.branch_ranking import estimate
from tdmpc2_core.scoring.course import evaluation_commands
from tdmpc2_core.scoring.evaluation import Act, acting, play
from tdmpc2_core.scoring.reaching import score_goal
from tdmpc2_core.scoring.walking import tracking_errors
from tdmpc2_core.train.run import CsvTable, keep_settings

try:
    from gymnasium import spaces
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize
except ImportError as problem:
    print(
        f"against_sb3: {problem}; this comparison needs the extra: pip install 'tdmpc2-core[comparison]'",
        file=sys.stderr,
    )
    sys.exit(2)

NAME = "against_sb3"
_SETTLE = 1.0  # s after the start that errors of following leave out
_SMALL = 8  # robots of an evaluation on the way
_SEED = 1_000_000  # of evaluations; those of training lie below


@dataclass(frozen=True)
class PPOSettings:
    """As usual for legged robots (rsl_rl), with networks for a processor."""

    robots: int = setting(128, low=1, why="side by side")
    decisions: int = setting(24, low=1, why="of each robot between updates: half a second")
    minibatches: int = setting(4, low=1, why="per pass over a rollout")
    epochs: int = setting(5, low=1, why="passes over a rollout")
    hidden: tuple[int, ...] = setting((256, 128), why="widths of policy and value, each its own; ELU")
    lr: float = setting(1e-3, above=0, why="at the start; follows desired_kl")
    desired_kl: float = setting(0.01, above=0, unit="nat", why="change of the policy per rollout")
    initial_std: float = setting(0.5, above=0, why="exploration at the start, of [-1, 1]")
    entropy_coef: float = setting(0.005, low=0, why="keeps the spread from closing early")
    discount: float = setting(0.99, above=0, below=1, why="foresight of two seconds")


@dataclass(frozen=True)
class SACSettings:
    """The package's own, but for many robots and fewer updates per decision, which wall time asks for."""

    robots: int = setting(16, low=1, why="side by side")
    updates: int = setting(8, low=1, why="after each step of all robots: half an update per decision")
    batch_size: int = setting(256, low=1, why="transitions per update")
    buffer: int = setting(500_000, low=1, why="transitions kept")
    warm_up: int = setting(5_000, low=0, why="random decisions before the first update")
    hidden: tuple[int, ...] = setting((256, 256), why="widths of policy and both values; ReLU")
    lr: float = setting(3e-4, above=0, why="Adam")
    discount: float = setting(0.99, above=0, below=1, why="foresight of two seconds")


@dataclass(frozen=True)
class Run:
    """Settings of one training; kept in its folder."""

    robot: str
    algorithm: str
    seed: int
    threads: int
    minutes: float
    ppo: PPOSettings = PPOSettings()
    sac: SACSettings = SACSettings()

    def __post_init__(self) -> None:
        check_fields(self)


class RobotVecEnv(VecEnv):
    """`BatchEnv` as Stable-Baselines3 wants it: observations without privileged ones, resets at once."""

    render_mode = None

    def __init__(self, embodiment: Embodiment, count: int, seed: int, threads: int) -> None:
        self.batch = BatchEnv(embodiment, count, seed, threads=threads)
        seen = spaces.Box(-np.inf, np.inf, (embodiment.observation_dim,), np.float32)
        super().__init__(count, seen, spaces.Box(-1.0, 1.0, (embodiment.action_dim,), np.float32))
        self._actions = np.zeros((count, embodiment.action_dim))
        self._total, self._length = np.zeros(count), np.zeros(count, dtype=int)

    def reset(self) -> np.ndarray:
        """New episodes everywhere; observations (N, O)."""
        self._total[:], self._length[:] = 0.0, 0
        return self.batch.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (N, A) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations (N, O), rewards (N,), ends (N,), and of ended episodes their last observation."""
        step = self.batch.step(self._actions)
        self._total += step.reward
        self._length += 1
        ended = step.terminated | step.truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(ended).tolist():
            infos[row] = {
                "terminal_observation": step.final_observation[row],
                "TimeLimit.truncated": bool(step.truncated[row]),
                "episode": {"r": float(self._total[row]), "l": int(self._length[row]), "t": 0.0},
            }
        self._total[ended], self._length[ended] = 0.0, 0
        return step.observation, step.reward.astype(np.float32), ended, infos

    def close(self) -> None:
        """Nothing is held."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same attribute for each robot."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: robots have no attributes of their own."""
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refused: robots have no methods of their own."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No robot is."""
        return [False] * len(list(self._get_indices(indices)))


def make(run: Run, env: VecEnv) -> BaseAlgorithm:
    """An untrained learner."""
    activation = {"ppo": torch.nn.ELU, "sac": torch.nn.ReLU}[run.algorithm]
    if run.algorithm == "ppo":
        ppo = run.ppo
        return PPO(
            "MlpPolicy",
            env,
            learning_rate=ppo.lr,
            n_steps=ppo.decisions,
            batch_size=ppo.robots * ppo.decisions // ppo.minibatches,
            n_epochs=ppo.epochs,
            gamma=ppo.discount,
            ent_coef=ppo.entropy_coef,
            vf_coef=1.0,
            max_grad_norm=1.0,
            policy_kwargs={
                "net_arch": list(ppo.hidden),
                "activation_fn": activation,
                "log_std_init": float(np.log(ppo.initial_std)),
            },
            seed=run.seed,
            device="cpu",
        )
    sac = run.sac
    return SAC(
        "MlpPolicy",
        env,
        learning_rate=sac.lr,
        buffer_size=sac.buffer,
        learning_starts=sac.warm_up,
        batch_size=sac.batch_size,
        gamma=sac.discount,
        train_freq=1,
        gradient_steps=sac.updates,
        policy_kwargs={"net_arch": list(sac.hidden), "activation_fn": activation},
        seed=run.seed,
        device="cpu",
    )


class Training:
    """A learner and its robots, whose time is measured; in a folder, from which it goes on.

    Raises:
        UserError: the folder holds a run with other settings.
    """

    def __init__(self, run: Run, folder: Path, embodiment: Embodiment) -> None:
        self.run, self.folder, self.embodiment = run, folder, embodiment
        keep_settings(folder, run, ("minutes",))
        state = folder / "state.json"
        self.kept: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
        self.seconds, resumes = self.kept.get("seconds", 0.0), self.kept.get("resumes", -1) + 1
        self.kept["resumes"] = resumes
        torch.set_num_threads(run.threads)
        count = run.ppo.robots if run.algorithm == "ppo" else run.sac.robots
        seed = int(np.random.default_rng([run.seed, resumes]).integers(_SEED - count))
        robots = RobotVecEnv(embodiment, count, seed, run.threads)
        ppo = run.algorithm == "ppo"
        discount = run.ppo.discount if ppo else run.sac.discount
        if resumes:
            self.env = VecNormalize.load(str(folder / "normaliser.pkl"), robots)
            self.model = (PPO if ppo else SAC).load(folder / "model.zip", env=self.env, device="cpu")
            if (folder / "replay.pkl").exists():
                self.model.load_replay_buffer(folder / "replay.pkl")
        else:
            self.env = VecNormalize(robots, norm_reward=ppo, clip_obs=20.0, gamma=discount)
            self.model = make(run, self.env)

    def learn(self, minutes: float) -> None:
        """Train until this much time is used, in all."""
        if self.seconds < 60.0 * minutes:
            clock = _Clock(self, minutes)
            self.model.learn(sys.maxsize, callback=clock, reset_num_timesteps=False)
            self.seconds += clock.spent

    def save(self) -> None:
        """Write all that a run goes on from; one that was killed meanwhile goes on from the save before."""
        self.kept |= {"seconds": self.seconds, "decisions": self.model.num_timesteps}
        with replacing(self.folder / "normaliser.pkl") as partial:
            self.env.save(str(partial))
        if self.run.algorithm == "sac":
            with replacing(self.folder / "replay.pkl") as partial, partial.open("wb") as file:
                self.model.save_replay_buffer(file)
        with replacing(self.folder / "model.zip") as partial, partial.open("wb") as file:
            self.model.save(file)
        write_json(self.folder / "state.json", self.kept)

    def act(self) -> Act:
        """The policy without exploration."""

        def act(environments: Sequence[Any], observations: np.ndarray, first: np.ndarray) -> np.ndarray:
            return self.model.predict(self.env.normalize_obs(observations), deterministic=True)[0]

        return act


class _Clock(BaseCallback):
    """Stops when the time is over; for PPO, moves the learning rate so that the policy changes as wanted."""

    def __init__(self, training: Training, minutes: float) -> None:
        super().__init__()
        self._training, self._end = training, 60.0 * minutes - training.seconds
        self._start, self.spent = 0.0, 0.0
        self._rate = training.kept.get("rate", training.run.ppo.lr)

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()

    def _on_rollout_start(self) -> None:
        if self._training.run.algorithm != "ppo":
            return
        divergence = self.model.logger.name_to_value.get("train/approx_kl")
        wanted = self._training.run.ppo.desired_kl
        if divergence is not None:
            self._rate /= 1.5 if divergence > 2.0 * wanted else 1.0
            self._rate *= 1.5 if divergence < 0.5 * wanted else 1.0
        self._rate = self._training.kept["rate"] = float(np.clip(self._rate, 1e-5, 1e-2))
        rate = self._rate
        self.model.lr_schedule = lambda _: rate

    def _on_step(self) -> bool:
        self.spent = time.perf_counter() - self._start
        return self.spent < self._end


# ---- evaluation ----
@dataclass(frozen=True)
class Episodes:
    """One value per robot (N,)."""

    reward: np.ndarray  # per decision, 0 after a fall
    error: np.ndarray  # m/s of the velocity; m of the tool while holding
    turn_error: np.ndarray  # rad/s of the yaw rate; rad of the tool while holding
    fell: np.ndarray


def evaluate(act: Act, embodiment: Embodiment, seconds: float, episodes: int) -> Episodes:
    """Robots side by side, as `evaluate_robot` runs them, but with a value for each."""
    environments = [RobotEnv(embodiment, _SEED + index) for index in range(episodes)]
    pose, rate = embodiment.pose_command, embodiment.control_rate
    if not pose:
        for env, command in zip(environments, evaluation_commands(embodiment, episodes), strict=True):
            env.set_command(command)
    per_goal = max(1, round(pose.resample_seconds * rate)) if pose else 1
    steps = max(per_goal, round(seconds * rate) // per_goal * per_goal)
    seen = np.full((steps, episodes, 3), np.inf if pose else np.nan)

    def watch(step: int, index: int, result: StepResult) -> None:
        if pose:
            seen[step, index, :2] = result.info["position_error"], result.info["rotation_error"]
        else:
            linear, angular = environments[index].simulation.base_velocity()
            seen[step, index] = linear[0], linear[1], angular[2]

    rewards, alive = play(act, environments, steps, watch)
    errors = np.full((episodes, 2), np.nan)
    for index, command in enumerate(evaluation_commands(embodiment, episodes)):
        if pose:
            since = (1 + np.arange(per_goal)) * embodiment.control_period
            goals = seen[:, index].reshape(-1, per_goal, 3)
            scores = [score_goal(since, goal[:, 0], goal[:, 1], pose) for goal in goals]
            errors[index] = np.mean(
                [(score.position_error, score.rotation_error) for score in scores], axis=0
            )
        elif twist := embodiment.twist_command:
            walked = seen[round(_SETTLE * rate) :, index]
            walked = walked[np.isfinite(walked).all(axis=1)]
            wanted = np.tile(twist.velocity(command), (len(walked), 1))
            if len(walked) > 1:
                times = np.arange(len(walked)) * embodiment.control_period
                errors[index] = tracking_errors(times, walked, wanted)
    return Episodes(rewards.mean(axis=0), errors[:, 0], errors[:, 1], ~alive)


def row(
    who: str, minutes: float, decisions: int, found: Episodes, prior: Episodes, robot: str
) -> dict[str, Any]:
    """One line of the table: means with their 95 % intervals over robots, differences to the prior paired."""
    measured = {
        "reward": found.reward,
        "less the prior's": found.reward - prior.reward,
        "error": found.error,
        "turn error": found.turn_error,
    }
    line: dict[str, Any] = {"robot": robot, "who": who, "minutes": minutes, "decisions": decisions}
    for name, values in measured.items():
        of = estimate(values)
        line |= {name: of.mean, f"{name} low": of.low, f"{name} high": of.high}
    return line | {"falls": int(found.fell.sum()), "robots": len(found.fell)}


def shown(line: dict[str, Any]) -> dict[str, Any]:
    """A line with its intervals in words."""
    words = {name: line[name] for name in ("robot", "who", "minutes", "decisions")}
    for name in ("reward", "less the prior's", "error", "turn error"):
        words[name] = f"{line[name]:.3f} [{line[f'{name} low']:.3f}, {line[f'{name} high']:.3f}]"
    return words | {"falls": f"{line['falls']}/{line['robots']}"}


def bundle_rows(
    embodiment: Embodiment, seconds: float, episodes: int
) -> tuple[Episodes, list[dict[str, Any]]]:
    """The shipped bundle's prior and planner; one that ships with the prior alone searches 64 x 1."""
    agent = Agent.load(embodiment.name)
    shipped, episode = agent.planner_config, {}
    searching = shipped
    if shipped.method == "policy":
        searching = replace(
            shipped, method="mppi", num_samples=64, num_elites=8, num_pi_trajs=24, iterations=1
        )
    for who, config in (("prior", replace(shipped, method="policy")), ("planner", searching)):
        episode[who] = evaluate(acting(agent.fork(config)), embodiment, seconds, episodes)
    rows = [row(who, 0.0, 0, found, episode["prior"], embodiment.name) for who, found in episode.items()]
    return episode["prior"], rows


def train(run: Run, runs: Path, out: Path, embodiment: Embodiment, every: float) -> Training:
    """Train one learner to its end; the curve grows by a row each `every` minutes."""
    training = Training(run, runs / f"{embodiment.name}-{run.algorithm}", embodiment)
    curve = CsvTable(out / f"{NAME}_{embodiment.name}_{run.algorithm}.csv")
    if not training.kept.get("seconds") and curve.path.exists():
        curve.path.unlink()  # of a run that this one does not go on from
        curve = CsvTable(curve.path)
    while training.seconds < 60.0 * run.minutes:
        due = (int(training.seconds / 60.0 / every + 1e-6) + 1) * every
        training.learn(min(run.minutes, due))
        found = evaluate(training.act(), embodiment, 8.0, _SMALL)
        point = {
            "minutes": round(training.seconds / 60.0, 2),
            "decisions": int(training.model.num_timesteps),
            "reward": float(found.reward.mean()),
            "falls": int(found.fell.sum()),
            "error": float(np.nanmean(found.error)) if np.isfinite(found.error).any() else float("nan"),
        }
        curve.add(
            {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in point.items()}
        )
        print(f"{run.algorithm} {embodiment.name}: {point}", file=sys.stderr, flush=True)
        training.save()
    return training


def plot(out: Path, embodiment: Embodiment, algorithms: Sequence[str], rows: list[dict[str, Any]]) -> None:
    """Curves over minutes, and where the bundle is."""
    fig, axes = figure(
        f"{embodiment.name}: the same robots, cores and time", "minutes", "reward per decision"
    )
    for algorithm in algorithms:
        points = CsvTable(out / f"{NAME}_{embodiment.name}_{algorithm}.csv").rows()
        minutes, reward = ([float(p[name]) for p in points] for name in ("minutes", "reward"))
        axes.plot(minutes, reward, "o-", label=algorithm.upper())
    for line, style in zip(rows, ("--", ":"), strict=False):
        axes.axhline(line["reward"], linestyle=style, color="black", label=f"bundle's {line['who']}")
    axes.legend()
    save_figure(fig, out / f"{NAME}_{embodiment.name}.png")


def compare(args: Any, embodiment: Embodiment) -> list[dict[str, Any]]:
    """Train, judge, and the rows of the table; those of other minutes that are there already stay."""
    trained = []
    for algorithm in args.algorithms:
        run = Run(embodiment.name, algorithm, args.seed, args.threads, args.minutes)
        trained.append((algorithm, train(run, args.runs, args.out, embodiment, args.evaluate_every)))
    torch.set_num_threads(1)
    prior, rows = bundle_rows(embodiment, args.seconds, args.episodes)
    for algorithm, training in trained:
        found = evaluate(training.act(), embodiment, args.seconds, args.episodes)
        decisions = int(training.model.num_timesteps)
        rows.append(row(algorithm.upper(), args.minutes, decisions, found, prior, embodiment.name))
    path = args.out / f"{NAME}_{embodiment.name}.json"
    made = {(line["who"], line["minutes"]) for line in rows}
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows += [line for line in before if (line["who"], line["minutes"]) not in made]
    return rows


def main() -> int:
    """Print the table; write against_sb3_<robot>.json, .png and a curve for each algorithm."""
    options = parser(__doc__ or "", "python benchmarks/against_sb3.py --robot quadruped --minutes 60")
    options.add_argument("--robot", default="quadruped", help="with a shipped bundle")
    options.add_argument("--algorithms", nargs="+", default=["ppo", "sac"], choices=["ppo", "sac"])
    options.add_argument("--minutes", type=positive, default=60.0, help="of training, each, in all")
    options.add_argument(
        "--threads", type=natural, default=2, help="of physics and of torch; they take turns"
    )
    options.add_argument("--episodes", type=natural, default=32, help="robots of the last evaluation")
    options.add_argument("--seconds", type=positive, default=20.0, help="of each")
    options.add_argument(
        "--evaluate-every", type=float, default=10.0, help="minutes between points of a curve"
    )
    options.add_argument("--seed", type=int, default=0, help="of training")
    options.add_argument("--runs", type=Path, default=Path("runs/against_sb3"), help="folders to go on from")
    args = options.parse_args()
    args.out = results_of(args.out)
    try:
        embodiment = Embodiment.load(args.robot)
        args.out.mkdir(parents=True, exist_ok=True)
        rows = compare(args, embodiment)
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 2
    print_table([shown(line) for line in rows])
    settings = {"ppo": to_mapping(PPOSettings()), "sac": to_mapping(SACSettings()), "seconds": args.seconds}
    save(args.out, f"{NAME}_{embodiment.name}", rows, settings=settings)
    plot(args.out, embodiment, args.algorithms, rows[:2])
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
