"""Ten minutes at the control rate, simulation beside it: does the planner ever return after its deadline?

One process plans in a thread of its own, as the planner node does; a second one steps the simulation in real
time and receives the actions. Both run before ordinary processes where the system allows it, as the
quickstart's nodes do. A plan is late when the caller has it after the deadline.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.calibration import calibrate
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.errors import positive

_PRIORITY = 5  # of SCHED_RR, as the quickstart gives its nodes
_COLLECT_EVERY = 250  # ticks between collections of garbage, right after a plan, as in the planner node


def urgent() -> bool:
    """Run before ordinary processes; False where the system does not allow it."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))
        return True
    return False


def simulate(bundle: str, period: float, link: Connection) -> None:
    """Send an observation every `period` s, as a robot's sensors would, and step with the newest action."""
    torch.set_num_threads(1)
    urgent()
    env = RobotEnv(Agent.load(bundle).embodiment, 0, EnvOptions())
    observation, action = env.reset(), np.zeros(env.embodiment.action_dim)
    falls, due = 0, time.monotonic()
    while True:
        link.send((observation, falls))
        due += period
        while (left := due - time.monotonic()) > 0.0:
            if link.poll(left):
                message = link.recv()
                if message is None:
                    return
                action = message
        result = env.step(action)
        observation = result.observation
        if result.terminated or result.truncated:
            falls += result.terminated
            observation = env.reset()


def run(agent: Agent, link: Connection, seconds: float, deadline: float) -> dict[str, Any]:
    """Plan on every observation for `seconds`; times in ms."""
    ticks = round(seconds / agent.control_period)
    times, margins, iterations = np.empty(ticks), np.empty(ticks), np.empty(ticks, dtype=int)
    cut = falls = 0
    gc.collect()
    gc.freeze()
    gc.disable()  # a full collection takes tens of ms
    for k in tqdm(range(ticks), unit="tick", file=sys.stderr, mininterval=5):
        observation, falls = link.recv()
        while link.poll():  # the newest counts
            observation, falls = link.recv()
        started = time.monotonic()
        plan = agent.plan(observation, now=started, deadline=started + deadline, first=k == 0)
        ended = time.monotonic()
        link.send(plan.actions[0])
        times[k], iterations[k] = 1e3 * (ended - started), plan.iterations
        margins[k] = 1e3 * (started + deadline - ended)
        cut += plan.ended_by == "deadline"
        if k % _COLLECT_EVERY == 0:
            gc.collect(1)
    return {
        "plans": ticks,
        "p50 ms": float(np.percentile(times, 50)),
        "p99 ms": float(np.percentile(times, 99)),
        "max ms": float(times.max()),
        "deadline ms": 1e3 * deadline,
        "late": int((margins < 0.0).sum()),
        "cut short": cut,
        "without iteration": int((iterations == 0).sum()),
        "falls": falls,
    }


def main() -> int:
    """Print the row; write deadline.json. Exit code 1 when a plan was late."""
    options = parser(__doc__ or "", "python benchmarks/deadline.py --minutes 10")
    options.add_argument("--bundle", default="quadruped", help="a robot's bundle, or a shipped robot")
    options.add_argument("--minutes", type=positive, default=10.0)
    options.add_argument(
        "--deadline-ms", type=float, default=12.0, help="time for a plan, the node's default"
    )
    options.add_argument("--calibrate", action="store_true", help="let the calibration choose the settings")
    args = options.parse_args()
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    agent, deadline = Agent.load(args.bundle), 1e-3 * args.deadline_ms
    if args.calibrate:
        found = calibrate(agent, 1.0 / agent.control_period, deadline)
        print(found)
        agent = agent.fork(found.config)
    for k in range(20):
        agent.plan(np.zeros(agent.model.config.obs_dim, np.float32), now=0.0, first=k == 0)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=simulate, args=(args.bundle, agent.control_period, there), daemon=True)
    process.start()
    realtime = urgent()
    row = {"planner": agent.planner_config.summary, **run(agent, here, 60 * args.minutes, deadline)}
    here.send(None)
    process.join(5.0)
    print_table([row])
    save(args.out, "deadline", [row], bundle=args.bundle, minutes=args.minutes, realtime=realtime)
    return 1 if row["late"] else 0


if __name__ == "__main__":
    sys.exit(script(main))
