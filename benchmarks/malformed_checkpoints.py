"""Random search for a damaged checkpoint that the readers answer with anything but a sentence.

Every case loads a bundle or an official .pt file with one random damage in a process of its own, so that a
crash or a hang is seen as such. The kinds of damage are those of the package's test, `malformed.py`.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from common import parser, print_table, results_of, save, script

from tdmpc2_core.errors import natural

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "tdmpc2_core" / "test"))
from malformed import Originals, attempt  # noqa: E402

FIRST = 1000  # the test takes the cases below
LIMIT = 60.0  # s


def one(originals: Originals, folder: Path, seed: int, sender) -> None:
    """Runs in the child."""
    torch.set_num_threads(1)
    sender.send(attempt(originals, folder, seed))


def isolated(originals: Originals, folder: Path, seed: int) -> tuple[str, str]:
    """Kind and outcome of one case; "crash" or "hang" when the child gave no answer."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=one, args=(originals, folder, seed, sender))
    child.start()
    sender.close()
    try:
        answer = receiver.recv() if receiver.poll(LIMIT) else ("?", "hang")
    except EOFError:
        answer = ("?", "crash")
    if answer[1] == "hang":
        child.kill()
    child.join()
    return answer


def main() -> int:
    """Print the table; write malformed_checkpoints.json. Exit code 1 when a case went wrong."""
    options = parser(__doc__ or "", "python benchmarks/malformed_checkpoints.py --cases 1000")
    options.add_argument("--cases", type=natural, default=1000, help="damaged checkpoints (default 1000)")
    args = options.parse_args()
    args.out = results_of(args.out)
    torch.set_num_threads(1)
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        originals = Originals(Path(scratch))
        for seed in range(FIRST, FIRST + args.cases):
            work = Path(scratch) / f"case-{seed}"
            work.mkdir()
            started = time.perf_counter()
            kind, outcome = isolated(originals, work, seed)
            slowest = max(slowest, time.perf_counter() - started)
            fine = outcome in ("error", "loaded")
            counts[kind, outcome if fine else "wrong"] += 1
            if not fine:
                wrong.append(f"case {seed} ({kind}): {outcome}")
    kinds = sorted({kind for kind, _ in counts})
    names = ("error", "loaded", "wrong")
    rows = [{"damage": kind, **{name: counts[kind, name] for name in names}} for kind in kinds]
    rows.append({"damage": "all", **{name: sum(counts[kind, name] for kind in kinds) for name in names}})
    print_table(rows)
    print("\n".join(wrong[:10]))
    save(args.out, "malformed_checkpoints", rows, slowest_seconds=round(slowest, 2), wrong=wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(script(main))
