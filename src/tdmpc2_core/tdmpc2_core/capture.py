"""How a fixed sequence of tensor operations is repeated: called anew, or captured once as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

_WARM_UP = 3  # calls before capture, in which kernels are chosen and buffers allocated


class Repeat(Protocol):
    """Repeats `body`, which works on the same tensors at every call."""

    replays: bool
    """Whether Python code in `body` is left out when it is repeated."""

    def prepare(
        self,
        body: Callable[[], None],
        generators: Sequence[torch.Generator],
        state: Callable[[], list[Tensor]],
    ) -> None:
        """Take `body`. generators: what it draws from. state: what it changes, restored afterwards."""
        ...

    def run(self) -> None:
        """Repeat it once."""
        ...


class Eager:
    """Calls the body: for a CPU, and to check the other one."""

    replays = False

    def prepare(
        self,
        body: Callable[[], None],
        generators: Sequence[torch.Generator],
        state: Callable[[], list[Tensor]],
    ) -> None:
        """See `Repeat.prepare`; nothing runs."""
        self._body = body

    def run(self) -> None:
        """Call the body."""
        self._body()


class CudaGraph:
    """Captures the body as one CUDA graph; repeating it is one launch, and no call waits for the device."""

    replays = True

    def prepare(
        self,
        body: Callable[[], None],
        generators: Sequence[torch.Generator],
        state: Callable[[], list[Tensor]],
    ) -> None:
        """See `Repeat.prepare`. Warm-up calls run on a stream of their own; what they changed is put back."""
        before = {id(tensor): tensor.clone() for tensor in state()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                body()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.no_grad():
            for tensor in state():  # what the first call made, an optimiser's moments, starts from zero
                tensor.copy_(before[id(tensor)]) if id(tensor) in before else tensor.zero_()
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph):
            body()

    def run(self) -> None:
        """Launch the graph."""
        self._graph.replay()


def best_repeat(device: torch.device) -> Repeat:
    """`CudaGraph` on a CUDA device, else `Eager`."""
    return CudaGraph() if device.type == "cuda" else Eager()
