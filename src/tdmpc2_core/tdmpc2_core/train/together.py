"""Several processes that learn one model, as `torchrun` starts them: equal weights, a part of each batch."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tdmpc2_core.learning.batch import Batch, UpdateDraws

_PATIENCE = timedelta(hours=24)  # the first process evaluates while the others wait


class Together:
    """The processes of this run; a single one where torchrun did not start it.

    Gradients are averaged, so `count` processes with a share of a batch each step as one with all of it does.
    """

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self._flat: dict[int, Tensor] = {}
        if self.count > 1:
            kind = "nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(kind, timeout=_PATIENCE)

    @property
    def first(self) -> bool:
        """Whether this process writes, evaluates and shows progress."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """That of this process: each takes a GPU of its own where there are some."""
        local = os.environ.get("LOCAL_RANK")
        return f"cuda:{local}" if local and name == "auto" and torch.cuda.is_available() else name

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes, in place."""
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        size = sum(grad.numel() for grad in grads)
        flat = self._flat.setdefault(size, torch.empty(size, device=grads[0].device))
        torch.cat([grad.reshape(-1) for grad in grads], out=flat)
        dist.all_reduce(flat)
        flat.div_(self.count)
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def gather(self, values: Tensor) -> Tensor:
        """`values` (H, B, ...) of all processes (H, count * B, ...)."""
        if self.count == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts, 1)

    def mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means of scalars over the processes, each of which names the same ones."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        if self.count > 1:
            dist.all_reduce(stacked)
            stacked /= self.count
        return dict(zip(values, stacked.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether some process raises a flag."""
        if self.count == 1:
            return flag
        raised = torch.tensor(float(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(raised)
        return bool(raised > 0)

    def part(self, batch: Batch, draws: UpdateDraws) -> tuple[Batch, UpdateDraws]:
        """This process's share of a batch and of its random numbers, which all processes draw alike."""
        if self.count == 1:
            return batch, draws
        size = batch.size // self.count
        mine = slice(self.rank * size, (self.rank + 1) * size)
        fields: dict[str, Any] = {
            name: value if value is None else value[mine] if name == "task" else value[:, mine]
            for name, value in vars(batch).items()
        }
        shifts = None if draws.shifts is None else draws.shifts[:, mine]
        noise = draws.td_noise[:, mine], draws.policy_noise[:, mine]
        return Batch(**fields), UpdateDraws(noise[0], draws.td_heads, noise[1], draws.policy_heads, shifts)

    def close(self) -> None:
        """Leave the others."""
        if self.count > 1:
            dist.destroy_process_group()
