"""Kernels in C for float32 on a CPU, compiled where a C compiler is installed: see `kernels.c`, `networks.c`.

The library is kept in the user's cache folder, by content, processor and compiler: only the first start on a
machine compiles (under a second). `CC` names another compiler, with flags if need be. Rows are shared out to
PyTorch's threads, in its own OpenMP runtime.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

EPS = 1e-5
"""LayerNorm's epsilon, as everywhere in TD-MPC2."""

KernelChoice = Literal["off", "auto"]
KERNELS_WHY = "auto: LayerNorm, Mish and softmax in compiled C on a CPU where a C compiler is installed"

active: ContextVar[Kernels | None] = ContextVar("active", default=None)
"""Kernels that the model's hidden layers use in this context."""


@contextmanager
def using(kernels: Kernels | None) -> Iterator[None]:
    """Run the model's hidden layers with these kernels, forward and backward."""
    token = active.set(kernels)
    try:
        yield
    finally:
        active.reset(token)


_SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.c", "networks.c"))
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
_SMALL = 65536  # elements; below, waking threads costs more than they save
_POINTER, _LONG, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_SIGNATURES: dict[str, Sequence[type]] = {
    "norm_mish": [_POINTER] * 4 + [_LONG] * 2 + [_FLOAT, _INT],
    "norm_mish_backward": [_POINTER] * 6 + [_LONG] * 2 + [_FLOAT, _INT],
    "pack": [_POINTER, *[_LONG] * 4, _POINTER, _INT],
    "matmul": [*[_POINTER, _LONG, _LONG] * 2, *[_POINTER] * 3, *[_LONG] * 3, *[_INT] * 2],
    "network": [
        *[_POINTER, _LONG] * 2,
        *[_POINTER] * 2,
        _LONG,
        _POINTER,
        *[_LONG] * 2,
        _FLOAT,
        *[_POINTER] * 2,
        _INT,
    ],  # fmt: skip
    "expected_bin": [_POINTER] * 3 + [_LONG] * 2 + [_INT],
    "decode": [_POINTER] * 3 + [_LONG] * 2 + [_INT],
    "squash": [_POINTER] * 3 + [_LONG] * 2 + [_FLOAT] * 2,
}


class Kernels:
    """The compiled library. All tensors: float32, contiguous, on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, types in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, None
        self._library = library
        self._panel = _LONG.in_dll(library, "panel").value

    @property
    def library(self) -> ctypes.CDLL:
        """The functions of `kernels.c` and `networks.c`; a call lets other Python threads run."""
        return self._library

    def forward(self, x: Tensor, gain: Tensor, shift: Tensor, eps: float, out: Tensor) -> None:
        """out <- Mish(LayerNorm(x)), both (R, M)."""
        self._library.norm_mish(*_pointers(x, gain, shift, out), *x.shape, eps, threads_for(x.numel()))

    def backward(
        self, grad: Tensor, x: Tensor, gain: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Gradients of `forward`: of x (R, M), and of gain, shift and a bias added to x (3, M)."""
        threads = threads_for(x.numel())
        d, sums = torch.empty_like(x), x.new_zeros(threads, 3, x.shape[1])
        self._library.norm_mish_backward(*_pointers(grad, x, gain, shift, d, sums), *x.shape, eps, threads)
        return d, sums[0] if threads == 1 else sums.sum(0)

    def panels(self, weight: Tensor) -> Tensor:
        """Weights (in, out), any strides, as `network` takes them; room for them in a flat tensor."""
        made = self._room(weight)
        pointers = weight.data_ptr(), *weight.stride(), *weight.shape, made.data_ptr()
        self._library.pack(*pointers, threads_for(weight.numel()))
        return made

    def matmul(
        self, x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None, add: bool = False
    ) -> None:
        """out (R, M) <- x (R, K) weight (K, M) + bias, or + out where `add`; x and weight of any strides."""
        room, (rows, inputs), outputs = self._room(weight), x.shape, weight.shape[1]
        sides = (x.data_ptr(), *x.stride(), weight.data_ptr(), *weight.stride())
        pointers = _pointers(bias, room, out)
        self._library.matmul(*sides, *pointers, rows, inputs, outputs, add, threads_for(out.numel()))

    def _room(self, weight: Tensor) -> Tensor:
        inputs, outputs = weight.shape
        return weight.new_empty(-(-outputs // self._panel) * self._panel * inputs)


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


def threads_for(elements: int) -> int:
    """Threads that share out work on this many elements."""
    return torch.get_num_threads() if elements >= _SMALL else 1


def kernels(choice: KernelChoice) -> Kernels | None:
    """The kernels, or None: not wanted, or they cannot be compiled here (said once, as a warning)."""
    return None if choice == "off" else _load()


@cache
def _load() -> Kernels | None:
    try:
        return Kernels(ctypes.CDLL(str(_library())))
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).warning("no compiled kernels, PyTorch's serve: %s", error)
        return None


def _library() -> Path:
    """Path of the library, compiled if it is not there. Raises OSError, SubprocessError."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc, gcc or clang) is installed")
    cpu = platform.processor() + platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    content = "\0".join([*(source.read_text() for source in _SOURCES), *_FLAGS, cpu, compiler])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdmpc2"
    path = folder / f"kernels-{hashlib.sha256(content.encode()).hexdigest()[:16]}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as build:
        units = {str(source): str(Path(build) / f"{source.stem}.o") for source in _SOURCES}
        library = Path(build) / "kernels.so"
        # linked without -fopenmp: its functions are then those of the runtime that PyTorch has loaded
        for command in (
            *([*_FLAGS, "-c", source, "-o", unit] for source, unit in units.items()),
            ["-shared", *units.values(), "-o", str(library), "-lm"],
        ):
            subprocess.run([*shlex.split(compiler), *command], check=True, capture_output=True, timeout=60)
        library.replace(path)
    return path
