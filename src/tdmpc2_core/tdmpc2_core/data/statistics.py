"""Figures of recorded columns, entry by entry, in one pass; and what an episode store holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.episodes import read_episode, stored_files

Array = NDArray[np.float64]


class Statistics:
    """Count, least, most, mean and deviation of rows (N, D), by entry; what is not finite is left out."""

    def __init__(self, width: int) -> None:
        self.count = np.zeros(width, np.int64)
        self.min, self.max = np.full(width, np.inf), np.full(width, -np.inf)
        self._mean, self._squares = np.zeros(width), np.zeros(width)

    def add(self, rows: NDArray[Any]) -> None:
        """More rows (N, D) or (N,)."""
        values = np.asarray(rows, np.float64).reshape(len(rows), -1)
        known = np.isfinite(values)
        count = known.sum(0)
        mean = np.where(known, values, 0.0).sum(0) / np.maximum(count, 1)
        squares = np.where(known, np.square(values - mean), 0.0).sum(0)
        total, apart = self.count + count, mean - self._mean  # merged as by Chan et al., 1979
        share = count / np.maximum(total, 1)
        self._squares += squares + np.square(apart) * self.count * share
        self._mean += apart * share
        self.count = total
        self.min = np.minimum(self.min, np.where(known, values, np.inf).min(0, initial=np.inf))
        self.max = np.maximum(self.max, np.where(known, values, -np.inf).max(0, initial=-np.inf))

    def summary(self) -> dict[str, list[Any]]:
        """Lists (D,) by name; 0 for an entry that was never finite, whose count tells."""
        known = self.count > 0
        deviation = np.sqrt(self._squares / np.maximum(self.count, 1))
        return {
            "min": np.where(known, self.min, 0.0).tolist(),
            "max": np.where(known, self.max, 0.0).tolist(),
            "mean": self._mean.tolist(),
            "std": deviation.tolist(),
            "count": self.count.tolist(),
        }


def store_info(folder: Path) -> dict[str, Any]:
    """Episodes, sources, known rewards and figures of every entry of a store, as plain values.

    Raises UserError without episodes, or for a damaged one, which it names.
    """
    episodes, entries = list[dict[str, Any]](), dict[str, Statistics]()
    for file in stored_files(folder):
        episode, metadata = read_episode(file)
        known = int(np.isfinite(episode.reward).sum())
        episodes.append(
            {
                "file": file.name,
                "decisions": len(episode),
                "source": str(metadata.get("source", "")),
                "known_rewards": known,
                "return": float(np.nansum(episode.reward)),
                "ends": "terminated" if episode.terminated.any() else "cut",
                "raw": sorted(episode.raw),
            }
        )
        for name in ("observation", "action", "reward", "value"):
            rows = getattr(episode, name)
            rows = rows.reshape(len(rows), -1)
            entries.setdefault(name, Statistics(rows.shape[1])).add(rows)
    total = sum(row["decisions"] for row in episodes)
    return {
        "store": str(folder),
        "episodes": episodes,
        "decisions": total,
        "sources": dict(Counter(row["source"] for row in episodes)),
        "known_rewards": sum(row["known_rewards"] for row in episodes) / max(total, 1),
        "statistics": {name: found.summary() for name, found in entries.items()},
    }


def info_text(info: dict[str, Any]) -> str:
    """`store_info` as tables."""
    sources = ", ".join(f"{name or 'unnamed'} {count}" for name, count in info["sources"].items())
    lines = [
        f"{info['store']}: {len(info['episodes'])} episodes, {info['decisions']} decisions; "
        f"sources: {sources}; {info['known_rewards']:.1%} of rewards known",
        f"{'file':22}{'decisions':>10}{'known':>8}{'return':>12}  ends        source",
    ]
    lines += [
        f"{row['file']:22}{row['decisions']:10}{row['known_rewards']:8}{row['return']:12.4g}  "
        f"{row['ends']:12}{row['source']}"
        for row in info["episodes"]
    ]
    lines.append(f"{'entry':22}{'known':>10}{'mean':>12}{'deviation':>12}{'least':>12}{'most':>12}")
    for name, found in info["statistics"].items():
        for k, count in enumerate(found["count"]):
            figures = "".join(f"{found[part][k]:12.4g}" for part in ("mean", "std", "min", "max"))
            lines.append(f"{f'{name}[{k}]':22}{count:10}{figures}")
    return "\n".join(lines)
