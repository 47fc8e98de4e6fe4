"""The official code's side of `against_official.py`: answers `plan SIZE` and `update SIZE` with a time in ms.

Runs with the interpreter of the official code's own environment and imports nothing of this repository. The
folder is a checkout of the official repository that runs on a CPU, with a module `cpu_agent` that builds its
agent: `make_agent(model_size, obs_dim, action_dim, episode_length) -> TDMPC2`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

OBS, ACTION, BATCH, HORIZON = 24, 6, 256, 3


def calls(folder: str, threads: int) -> Callable[[str, int], Callable[[], Any]]:
    """What is timed, by kind and size, with agents built on first use."""
    sys.path.insert(0, folder)
    import torch

    torch.set_num_threads(threads)
    from cpu_agent import make_agent

    made: dict[tuple[str, int], Callable[[], Any]] = {}

    def get(kind: str, size: int) -> Callable[[], Any]:
        if (kind, size) not in made:
            agent = make_agent(model_size=size, obs_dim=OBS, action_dim=ACTION, episode_length=500)
            obs = torch.randn(OBS)
            batch = (
                torch.randn(HORIZON + 1, BATCH, OBS),
                torch.rand(HORIZON, BATCH, ACTION) * 2 - 1,
                torch.randn(HORIZON, BATCH, 1),
                torch.zeros(HORIZON, BATCH, 1),
            )
            made["plan", size] = lambda: agent.act(obs, t0=False, eval_mode=True)
            made["update", size] = lambda: agent._update(*batch)
        return made[kind, size]

    return get


def main() -> int:
    """Serve requests, one a line, until the input ends; what the official code prints goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    get = calls(sys.argv[1], int(sys.argv[2]))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        kind, size = line.split()
        call = get(kind, int(size))
        started = time.perf_counter()
        call()
        print(1e3 * (time.perf_counter() - started), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
