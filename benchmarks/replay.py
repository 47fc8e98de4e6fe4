"""Replay memory of a million decisions: 48 observations, 12 actions, the planner's Gaussian of each action.

Memory is that of the process, torch included. Sampling draws 256 windows of 4 decisions; `one by one` inserts
decisions as the training loop does; `stored` appends episodes of 500 decisions to the episode store, flushed
to the disk.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import milliseconds, parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.data.episodes import Episode, EpisodeStore
from tdmpc2_core.errors import natural
from tdmpc2_core.learning.replay import ReplayBuffer

OBS, ACTION, LENGTH, LANES = 48, 12, 500, 8


def resident() -> float:
    """Memory of this process, MB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024


def episode(rng: np.random.Generator) -> Episode:
    """Random numbers in an episode's shape."""

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    flags = np.zeros(LENGTH, dtype=bool)
    action = [normal(LENGTH, ACTION).clip(-1, 1) for _ in range(3)]
    return Episode(
        normal(LENGTH + 1, OBS),
        action[0],
        normal(LENGTH),
        flags,
        action[1],
        action[2],
        ~flags,
        normal(LENGTH),
        True,
    )


def main() -> int:
    """Print the table; write replay.json."""
    options = parser(__doc__ or "", "python benchmarks/replay.py")
    options.add_argument("--steps", type=natural, default=1_000_000, help="decisions that are held")
    options.add_argument("--calls", type=natural, default=1000, help="timed batches")
    args = options.parse_args()
    args.out = results_of(args.out)
    torch.set_num_threads(1)
    rng, before = np.random.default_rng(0), resident()
    count = args.steps // (LENGTH * LANES)
    replay = ReplayBuffer(LANES, count * (LENGTH + 1), OBS, ACTION)
    for _ in tqdm(range(count), unit="episodes x 8", file=sys.stderr):
        for lane in range(LANES):
            replay.add_episode(lane, episode(rng))
    sampling = milliseconds(lambda: replay.sample(256, 4), args.calls)
    after = resident()
    one = episode(rng)

    def add() -> None:
        replay.add(0, one.observation[0], one.action[0], 0.0, False, one.plan_mean[0], one.plan_std[0])

    adding = milliseconds(add, args.calls)
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore(folder)
        appending = milliseconds(lambda: store.append(one), 50)
        size = store.paths()[0].stat().st_size / LENGTH
    row = {
        "decisions": count * LENGTH * LANES,
        "process MB": after,
        "of which rows MB": after - before,
        "sample p50 ms": float(np.percentile(sampling, 50)),
        "sample p99 ms": float(np.percentile(sampling, 99)),
        "one by one ms": float(np.median(adding)),
        "episode stored ms": float(np.median(appending)),
        "stored bytes/decision": round(size),
    }
    print_table([row])
    save(args.out, "replay", [row], batch=256, window=4)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
