"""Many simulations of one robot: their physics side by side in threads, their readings in arrays.

Each robot keeps its own mjData, so that it goes on as a single simulation would, bit for bit: a rollout over
all robots at once gives no warm start of the solver back, without which the steps that follow would differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.ground import Ground, Terrain, Terrains
from tdmpc2_core.envs.robot.simulation import TOGETHER, Readings, Simulation


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
        self._helpers = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        self._threads = threads

    def play(self, targets: NDArray[np.float64]) -> None:
        """Physics steps of every robot under a row each of joint position targets (N, steps, J), rad."""
        rows = iter(range(len(self.simulations)))  # every thread takes the next one
        shaped = self.terrains is not None

        def run() -> None:
            for row in rows:
                simulation = self.simulations[row]
                if shaped:
                    simulation.follow()
                simulation.play(targets[row])

        if self._helpers is None:
            run()
        else:
            # the caller takes part: were it to sleep, the system would often run a helper on its core only
            running = [self._helpers.submit(run) for _ in range(self._threads - 1)]
            run()
            for helper in running:
                helper.result()
        self.data.forget()

    def read(self, source: str) -> dict[str, NDArray[np.float64]]:
        """What the sensors of one of `sources` report now, with an axis of robots in front."""
        if source in TOGETHER:
            return super().read(source)
        readings = [simulation.read(source) for simulation in self.simulations]
        return {name: np.stack([reading[name] for reading in readings]) for name in readings[0]}

    def _find_ground(self) -> Ground | Terrain | Terrains:
        terrains = [simulation.terrain for simulation in self.simulations if simulation.terrain]
        return Terrains(terrains) if terrains else super()._find_ground()

    @property
    def terrains(self) -> Terrains | None:
        """The grounds that episodes shape, where the embodiment's ranges have some."""
        return self._ground if isinstance(self._ground, Terrains) else None

    def _tool_frame(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        for simulation in self.simulations:
            simulation.update_poses()
        self.data.forget()
        return super()._tool_frame()
