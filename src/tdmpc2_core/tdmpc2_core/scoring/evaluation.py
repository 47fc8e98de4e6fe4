"""Evaluation of an agent on what it was trained for: a robot's commands or goals, or a benchmark task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.gymnasium import names_code
from tdmpc2_core.envs.protocol import StepResult
from tdmpc2_core.envs.registry import known_task, make_env
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.scoring.course import evaluation_commands
from tdmpc2_core.scoring.reaching import score_goal
from tdmpc2_core.scoring.walking import along, tracking_errors
from tdmpc2_core.teachers.demonstrator import Demonstrator

_SETTLE = 1.0  # s after the start that errors of following leave out


Act = Callable[[Sequence[Any], np.ndarray, np.ndarray], np.ndarray]
"""Actions (N, A) in environments from their observations (N, O); flags (N,) tell which episodes begin."""
Watch = Callable[[int, int, StepResult], None]
"""Told of a decision: step, environment, what came of it."""
Spectator = Callable[[int, int, Sequence[Any]], None]
"""Told after every step of all environments: its number from 1, of how many, the environments."""


@dataclass(frozen=True)
class WalkEvaluation:
    """Means over the evaluation episodes; errors and ratio are NaN for a robot that takes no command, and are
    then in no table."""

    return_per_step: float
    velocity_error: float  # m/s, horizontal, see `walking`
    yaw_rate_error: float  # rad/s
    distance_ratio: float  # distance travelled along the commanded direction / distance commanded
    falls: int
    episodes: int


@dataclass(frozen=True)
class PoseEvaluation:
    """Of a robot without commands, such as an arm that keeps a pose."""

    return_per_step: float
    falls: int
    episodes: int


@dataclass(frozen=True)
class ReachEvaluation:
    """Over all goals of the evaluation episodes; errors are means while holding."""

    return_per_step: float
    success: float  # share of goals: reached in time and held, see `reaching.GoalScore`
    reached: float  # share of goals that the tool came to within the tolerance in time
    position_error: float  # m
    rotation_error: float  # rad
    falls: int
    goals: int
    episodes: int


@dataclass(frozen=True)
class TaskEvaluation:
    """Returns of the evaluation episodes."""

    mean_return: float
    std_return: float  # over episodes, population
    lowest_return: float
    return_per_step: float
    episodes: int
    success: float = float("nan")  # share of episodes that end in success; NaN where the task tells none


AnyEvaluation = WalkEvaluation | PoseEvaluation | ReachEvaluation | TaskEvaluation


def evaluate_agent(
    agent: Agent,
    seconds: float,
    episodes: int,
    seed: int = 0,
    task: str | None = None,
    spectator: Spectator | None = None,
    heading_hold: float = 0.0,
) -> AnyEvaluation:
    """Run `episodes` environments side by side, without exploration noise.

    Args:
        agent: its embodiment, or else its task, says in what.
        seconds: length of a robot's episode, s; those of a task run to their time limit.
        episodes: environments; for a robot that follows commands, one command each.
        seed: of the first environment.
        task: one of the agent's, for an agent that knows several.
        spectator: sees every step.
        heading_hold: see `evaluate_robot`.

    Raises:
        UserError: the agent has neither an embodiment nor a task, not the one that is named, or one that is
            the user's own code and is not named.
    """
    if agent.embodiment is not None and task is None:
        return evaluate_robot(
            agent,
            agent.embodiment,
            seconds,
            episodes,
            seed=seed,
            spectator=spectator,
            heading_hold=heading_hold,
        )
    if task is None and len(agent.tasks) == 1:
        task = agent.tasks[0]
        if names_code(task):  # a bundle is data, and runs no code that the user has not named
            raise UserError(f"the bundle's task is code of yours; name it to run it: --task {task}")
    if task not in agent.tasks:
        known = ", ".join(agent.tasks) or "none"
        wrong = (
            "the model knows several tasks, and none is named" if task is None else f"unknown task {task!r}"
        )
        raise UserError(f"{wrong}; accepted: {known}")
    return evaluate_task(agent, task, episodes, seed=seed, spectator=spectator)


def evaluate_robot(
    agent: Agent,
    embodiment: Embodiment,
    seconds: float,
    episodes: int = 8,
    seed: int = 0,
    randomise: bool = True,
    spectator: Spectator | None = None,
    heading_hold: float = 0.0,
) -> WalkEvaluation | PoseEvaluation | ReachEvaluation:
    """Run ``episodes`` robots side by side; no exploration noise.

    Each has one command of `evaluation_commands`. A robot with a pose command is sent to random goals
    instead, each for ``command.resample_seconds``; at least one is given. With a gain ``heading_hold``, 1/s,
    the policy is told what `HeadingHold` makes of its command; errors are those of the command itself.

    Raises:
        UserError: the time is shorter than a decision.
    """
    _check_length(embodiment, seconds)
    if embodiment.pose_command:
        return _evaluate_reach(agent, embodiment, seconds, episodes, seed, randomise, spectator)
    commands = evaluation_commands(embodiment, episodes)
    environments = _commanded(embodiment, commands, seed, randomise, heading_hold)
    steps = round(seconds * embodiment.control_rate)
    velocity = np.full((steps, episodes, 3), np.nan)

    def watch(step: int, index: int, _: StepResult) -> None:
        linear, angular = environments[index].simulation.base_velocity()
        velocity[step, index] = linear[0], linear[1], angular[2]

    rewards, alive = play(acting(agent), environments, steps, watch, spectator)
    if embodiment.twist_command is None:
        return PoseEvaluation(float(rewards.mean()), falls=int((~alive).sum()), episodes=episodes)
    errors, travelled, commanded = [], 0.0, 0.0
    settle, twist = round(_SETTLE * embodiment.control_rate), embodiment.twist_command
    for index, command in enumerate(commands):
        seen = velocity[settle:, index]
        seen = seen[np.isfinite(seen).all(axis=1)]
        if twist is None or len(seen) < 2:
            continue
        time = np.arange(len(seen)) * embodiment.control_period
        wanted = np.tile(twist.velocity(command), (len(seen), 1))
        errors.append(tracking_errors(time, seen, wanted))
        travelled += along(time, seen[:, :2], wanted)
        commanded += float(np.linalg.norm(wanted[0, :2]) * time[-1])
    velocity_error, yaw_rate_error = np.mean(errors, axis=0) if errors else (np.nan, np.nan)
    return WalkEvaluation(
        return_per_step=float(rewards.mean()),
        velocity_error=float(velocity_error),
        yaw_rate_error=float(yaw_rate_error),
        distance_ratio=travelled / commanded if commanded else float("nan"),
        falls=int((~alive).sum()),
        episodes=episodes,
    )


def _check_length(embodiment: Embodiment, seconds: float) -> None:
    """Raise UserError for a time shorter than a decision."""
    if round(seconds * embodiment.control_rate) < 1:
        raise UserError(
            f"seconds is {seconds:g}, less than one decision of {embodiment.name}; give "
            f"{embodiment.control_period:g} or more"
        )


def _commanded(
    embodiment: Embodiment, commands: Sequence[np.ndarray], seed: int, randomise: bool, heading_hold: float
) -> list[RobotEnv]:
    """A robot for each command."""
    environments = []
    for index, command in enumerate(commands):
        env = RobotEnv(embodiment, seed + index, EnvOptions(randomise=randomise))
        env.set_command(command)
        env.assembler.heading.gain = heading_hold
        environments.append(env)
    return environments


def acting(agent: Agent, task: str | None = None) -> Act:
    """An agent without exploration noise, its earlier plans forgotten. Of one that knows several tasks, whose
    observations and actions may be longer than this task's, the former are filled up with zeros."""
    agent.reset()
    several = task is not None and agent.model.config.num_tasks > 0

    def act(environments: Sequence[Any], observations: np.ndarray, first: np.ndarray) -> np.ndarray:
        spec, count = environments[0].spec, len(environments)
        seen = np.zeros((count, agent.model.config.obs_dim), dtype=np.float32)
        seen[:, : spec.observation_dim] = observations
        tasks = np.full(count, agent.tasks.index(task)) if several else None
        return agent.act(seen, first, evaluate=True, task=tasks).action[:, : spec.action_dim]

    return act


def demonstrating(embodiment: Embodiment, count: int) -> Act:
    """The scripted controllers of `count` robots, which read the true state."""
    teachers = [Demonstrator(embodiment) for _ in range(count)]

    def act(environments: Sequence[Any], observations: np.ndarray, first: np.ndarray) -> np.ndarray:
        for index in np.flatnonzero(first):
            teachers[index].reset()
        return np.array([teacher.action(env) for teacher, env in zip(teachers, environments, strict=True)])

    return act


def play(
    act: Act,
    environments: Sequence[Any],
    steps: int,
    watch: Watch = lambda step, index, result: None,
    spectator: Spectator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run environments side by side for `steps` decisions, each at most until it terminates.

    Returns:
        Rewards (T, N), 0 after an end, and which environments did not terminate (N,).
    """
    observations = np.stack([env.reset() for env in environments])
    first, alive = np.ones(len(environments), dtype=bool), np.ones(len(environments), dtype=bool)
    rewards = np.zeros((steps, len(environments)))
    for step in range(steps):
        actions = act(environments, observations, first)
        first[:] = False
        for index in map(int, np.flatnonzero(alive)):
            result = environments[index].step(actions[index])
            observations[index], rewards[step, index] = result.observation, result.reward
            watch(step, index, result)
            alive[index] = not result.terminated
        if spectator is not None:
            spectator(step + 1, steps, environments)
    return rewards, alive


def _evaluate_reach(
    agent: Agent,
    embodiment: Embodiment,
    seconds: float,
    episodes: int,
    seed: int,
    randomise: bool,
    spectator: Spectator | None,
) -> ReachEvaluation:
    spec = embodiment.pose_command
    assert spec is not None
    environments = [
        RobotEnv(embodiment, seed + index, EnvOptions(randomise=randomise)) for index in range(episodes)
    ]
    per_goal = max(1, round(spec.resample_seconds * embodiment.control_rate))
    goals = max(1, round(seconds * embodiment.control_rate) // per_goal)
    errors = np.full((goals * per_goal, episodes, 2), np.inf)  # m, rad; a robot that fell stays away

    def watch(step: int, index: int, result: StepResult) -> None:
        errors[step, index] = result.info["position_error"], result.info["rotation_error"]

    rewards, alive = play(acting(agent), environments, goals * per_goal, watch, spectator)
    since = (1 + np.arange(per_goal)) * embodiment.control_period
    by_goal = errors.reshape(goals, per_goal, episodes, 2)
    scores = [
        score_goal(since, by_goal[goal, :, index, 0], by_goal[goal, :, index, 1], spec)
        for goal in range(goals)
        for index in range(episodes)
    ]
    return ReachEvaluation(
        return_per_step=float(rewards.mean()),
        success=float(np.mean([score.held for score in scores])),
        reached=float(np.mean([score.reached for score in scores])),
        position_error=float(np.mean([score.position_error for score in scores])),
        rotation_error=float(np.mean([score.rotation_error for score in scores])),
        falls=int((~alive).sum()),
        goals=goals * episodes,
        episodes=episodes,
    )


def evaluate_task(
    agent: Agent, task: str, episodes: int = 10, seed: int = 0, spectator: Spectator | None = None
) -> TaskEvaluation:
    """Run `episodes` environments of `task` side by side to their time limit; no exploration noise.

    Args:
        agent: acts; its plans are forgotten first.
        task: name of a task, see `envs.registry.make_env`.
        episodes: environments; environment i has seed `seed` + i.
        seed: of the first environment.
        spectator: sees every step.

    Raises:
        UserError: there is no such task, or its package is not installed.
    """
    environments = [make_env(known_task(task), seed + index) for index in range(episodes)]
    steps, lengths = environments[0].spec.episode_length, np.zeros(episodes)
    success = np.full(episodes, np.nan)

    def watch(step: int, index: int, result: StepResult) -> None:
        lengths[index] = step + 1
        success[index] = result.info.get("success", np.nan)

    returns = play(acting(agent, task), environments, steps, watch, spectator)[0].sum(axis=0)
    return TaskEvaluation(
        mean_return=float(returns.mean()),
        std_return=float(returns.std()),
        lowest_return=float(returns.min()),
        return_per_step=float(returns.sum() / lengths.sum()),
        episodes=episodes,
        success=float(success.mean()),
    )


def evaluation_table(results: Mapping[str, AnyEvaluation]) -> str:
    """One line per named evaluation; all are of one robot or task."""
    cells = {name: _cells(result) for name, result in results.items()}
    rows = [["planner", *next(iter(cells.values()), {})]]
    rows += [[name, *values.values()] for name, values in cells.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def summary(result: AnyEvaluation) -> str:
    """One evaluation in one line, for the log."""
    return ", ".join(f"{name} {value}" for name, value in _cells(result).items())


def _cells(result: AnyEvaluation) -> dict[str, str]:
    if isinstance(result, TaskEvaluation):
        cells = {"return": f"{result.mean_return:.1f}", "std": f"{result.std_return:.1f}"}
        cells |= {"lowest": f"{result.lowest_return:.1f}", "episodes": str(result.episodes)}
        return cells | ({"success": f"{100 * result.success:.0f} %"} if np.isfinite(result.success) else {})
    cells = {"reward/step": f"{result.return_per_step:.3f}"}
    if isinstance(result, ReachEvaluation):
        cells["goals reached and held"] = f"{100 * result.success:.1f} % of {result.goals}"
        cells["position error"] = f"{1000 * result.position_error:.1f} mm"
        cells["rotation error"] = f"{result.rotation_error:.3f} rad"
        return cells
    if isinstance(result, WalkEvaluation):
        cells["velocity error"] = _measured(result.velocity_error, ".3f", "m/s")
        cells["yaw-rate error"] = _measured(result.yaw_rate_error, ".3f", "rad/s")
        cells["distance"] = _measured(100 * result.distance_ratio, ".0f", "%")
    return cells | {"falls": f"{result.falls}/{result.episodes}"}


def _measured(value: float, form: str, unit: str) -> str:
    """A value with its unit; a dash where nothing was measured, as when no robot was told to move."""
    return f"{value:{form}} {unit}" if np.isfinite(value) else "-"
