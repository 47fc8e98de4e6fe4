"""An arm's bundle on random goals: reached within 2 s to 2 cm, error while holding, recovery from a push.

Every goal is an episode of its own from a random start, in simulation at the control rate, with sensor noise,
random gains and delay, and no exploration noise. After the goal's time a force pushes the tool in a random
horizontal direction; recovered is the time until the tool is, and stays, within the tolerance again.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.protocol import StepResult
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.goals import GoalSampler
from tdmpc2_core.errors import natural, positive
from tdmpc2_core.planning import planner_preset
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.branches import steady
from tdmpc2_core.scoring.evaluation import Act, acting, demonstrating, play
from tdmpc2_core.scoring.reaching import score_goal

CONTROLLERS = ("policy prior", "bundle", "scripted")
AFTER_PUSH = 2.0  # s that are watched from the beginning of a push


def measure(
    act: Act, embodiment: Embodiment, goals: int, force: float, seconds: float, seed: int
) -> dict[str, float | str]:
    """The row of one controller: arms side by side, each with one goal and a push in its own direction."""
    spec, rate = embodiment.pose_command, embodiment.control_rate
    quiet = steady(embodiment, hold=False)
    environments = [RobotEnv(quiet, seed + k, EnvOptions()) for k in range(goals)]
    for env in environments:
        env.set_command(GoalSampler(quiet).draw(env.rng))
    before = round(spec.resample_seconds * rate)
    errors = np.zeros((before + round(AFTER_PUSH * rate), goals, 2))  # m, rad

    def watch(step: int, index: int, result: StepResult) -> None:
        errors[step, index] = result.info["position_error"], result.info["rotation_error"]
        if step + 1 == before:
            angle = environments[index].rng.uniform(0.0, 2.0 * np.pi)
            push = force * np.array([np.cos(angle), np.sin(angle), 0.0])
            environments[index].simulation.push_tool(push, seconds)

    play(act, environments, len(errors), watch)
    errors, after = errors[:before], errors[before:, :, 0]
    since = (1 + np.arange(before)) / rate
    scores = [score_goal(since, errors[:, k, 0], errors[:, k, 1], spec) for k in range(goals)]
    times = [score.reach_time for score in scores if score.reached]
    holding = np.array([score.position_error for score in scores])
    away = after > spec.position_tolerance
    last_away = np.where(away.any(axis=0), len(away) - np.argmax(away[::-1], axis=0), 0) / rate
    return {
        "goals": goals,
        "reached in 2 s %": 100.0 * float(np.mean([score.reached for score in scores])),
        "reached and held %": 100.0 * float(np.mean([score.held for score in scores])),
        "time to reach s": float(np.median(times)) if times else float("nan"),
        "hold error mm": 1000.0 * float(np.median(holding)),
        "hold error p95 mm": 1000.0 * float(np.percentile(holding, 95)),
        "hold angle rad": float(np.median([score.rotation_error for score in scores])),
        "push moved mm": 1000.0 * float(np.median(after.max(axis=0))),
        "recovered in 1 s %": 100.0 * float((last_away <= 1.0).mean()),
    }


def main() -> int:
    """Print the table; write arm_reach.json."""
    options = parser(__doc__ or "", "python benchmarks/arm_reach.py --goals 200")
    options.add_argument("--bundle", default="arm", help="bundle folder or a shipped robot")
    options.add_argument("--goals", type=natural, default=200, help="random goals, each from a random start")
    options.add_argument("--seed", type=int, default=1000, help="of the first goal's environment")
    options.add_argument("--force", type=float, default=30.0, help="of the push, N")
    options.add_argument("--push-seconds", type=positive, default=0.2, help="length of the push, s")
    options.add_argument(
        "--controllers", nargs="+", choices=CONTROLLERS, default=CONTROLLERS, help="rows that are measured"
    )
    args = options.parse_args()
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(1)
    agent = Agent.load(args.bundle)
    controllers = {
        "policy prior": acting(agent.fork(planner_preset("policy"))),
        "bundle": acting(agent),
        "scripted": demonstrating(agent.embodiment, args.goals),
    }
    rows = []
    for name in tqdm(args.controllers, unit="controller", file=sys.stderr):
        controller = controllers[name]
        push = (args.force, args.push_seconds)
        rows.append(
            {"controller": name, **measure(controller, agent.embodiment, args.goals, *push, args.seed)}
        )
        print_table(rows)
        save(args.out, "arm_reach", rows, seed=args.seed, force_n=args.force, push_seconds=args.push_seconds)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
