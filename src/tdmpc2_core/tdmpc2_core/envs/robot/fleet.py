"""Many simulations of one robot: their physics side by side in threads, their readings in arrays.

Each robot keeps its own mjData, so that it goes on as a single simulation would, bit for bit. `mujoco.rollout`
steps many robots, too, but gives no warm start of the solver back, without which the steps that follow differ,
and cannot turn a force with the tool. MuJoCo lets go of the interpreter while it steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.simulation import Readings, Simulation

_CHUNKS = 4
"""Portions of robots per thread: small enough that a thread whose core is slow does not keep the others."""


class GatheredData:
    """The arrays of several mjData under their names, with an axis of robots in front.

    An array is copied together when it is first asked for, and again after `forget`.
    """

    def __init__(self, data: Sequence[mujoco.MjData]) -> None:
        self._data = list(data)
        self._parts: dict[str, list[NDArray[Any]]] = {}  # of each robot, flat: views of MuJoCo's memory

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "time":
            gathered = np.array([data.time for data in self._data])
        else:
            if name not in self._parts:
                self._parts[name] = [getattr(data, name).reshape(-1) for data in self._data]
            shape = getattr(self._data[0], name).shape
            gathered = np.concatenate(self._parts[name]).reshape(len(self._data), *shape)
        self.__dict__[name] = gathered
        return gathered

    def forget(self) -> None:
        """The robots have moved."""
        for name in [name for name in self.__dict__ if not name.startswith("_")]:
            del self.__dict__[name]


class Fleet(Readings):
    """N simulations of one embodiment; every reading has an axis of robots in front.

    Args:
        simulations: of the same embodiment.
        threads: that step physics side by side.
    """

    def __init__(self, simulations: Iterable[Simulation], threads: int = 1) -> None:
        self.simulations = tuple(simulations)
        first = self.simulations[0]
        self.embodiment, self.model = first.embodiment, first.model
        self.data = GatheredData([simulation.data for simulation in self.simulations])
        self._find()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        portions = threads * _CHUNKS if threads > 1 else 1
        rows = np.arange(len(self.simulations))
        self._portions = [part.tolist() for part in np.array_split(rows, portions) if len(part)]

    def play(self, targets: NDArray[np.float64]) -> None:
        """Physics steps of every robot under a row each of joint position targets (N, steps, J), rad."""

        def run(rows: list[int]) -> None:
            for row in rows:
                self.simulations[row].play(targets[row])

        for _ in map(run, self._portions) if self._pool is None else self._pool.map(run, self._portions):
            pass
        self.data.forget()

    def _tool_frame(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        for simulation in self.simulations:
            simulation.update_poses()
        self.data.forget()
        return super()._tool_frame()
