"""The planner as an AOTInductor package (.pt2): machine code with the weights inside, nothing is traced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.config import from_mapping, to_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.export.planner_parts import Iterate, Start, check_exportable, example_inputs
from tdmpc2_core.model.world_model import WorldModel
from tdmpc2_core.planning.clock import IterationClock
from tdmpc2_core.planning.config import PlannerConfig
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.protocol import PlanDraws
from tdmpc2_core.planning.rollout import Discount
from tdmpc2_core.planning.search import Search

_PARTS = ("start", "iterate")
_KEY = "tdmpc2_planner"


def export_aoti(
    model: WorldModel, config: PlannerConfig, discount: Discount, path: str | Path, robots: int = 1
) -> None:
    """Compile the planner for the model's device and `robots` robots, and write it to `path` (.pt2).

    Needs a C++ compiler (CPU) or Triton (CUDA); takes a minute or more. The package runs on machines of the
    same kind with the same torch.

    Raises:
        UserError: other planners than mppi, no compiler, or `path` cannot be written.
    """
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.package import package_aoti

    check_exportable(config)
    target = Path(path)
    if target.suffix != ".pt2":
        raise UserError(f"{target}: a compiled package has the ending .pt2; give such a name")
    parameter = next(model.parameters())
    about = {
        "planner": to_mapping(config),
        "model": to_mapping(model.config),
        "robots": robots,
        "device": parameter.device.type,
        "torch": torch.__version__,
    }
    options = {"aot_inductor.package": True, "aot_inductor.metadata": {_KEY: json.dumps(about)}}
    parts = (Start(model, config, discount).eval(), Iterate(model, config, discount).eval())
    files: dict[str, Any] = {}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            for name, part, inputs in zip(_PARTS, parts, example_inputs(model, config, robots), strict=True):
                program = torch.export.export(part, inputs, strict=False)
                files[name] = torch._inductor.aot_compile(program.module(), inputs, options=options)
        package_aoti(str(target), files)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give a writable path") from None
    except BackendCompilerFailed as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"export: it cannot be compiled here ({reason}); is g++ or clang installed?"
        ) from None


class CompiledPlanner(MPPI):
    """A package made by `export_aoti` behind the planner protocol; deadlines hold between iterations.

    path: the .pt2 file. seed: of the random numbers it draws.

    Raises:
        UserError: no such file, not made by `export_aoti`, or not runnable with this torch and device.
    """

    def __init__(self, path: str | Path, seed: int = 0) -> None:
        self._start, self._iterate, about = _load(Path(path))
        self.config = from_mapping(PlannerConfig, about["planner"], str(path), "planner")
        self.device = torch.device(about["device"])
        self.robots = int(about["robots"])
        self.action_dim, self.num_q = about["model"]["action_dim"], about["model"]["num_q"]
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self._host_generator = torch.Generator().manual_seed(seed)
        self._mean = None
        self._clock = IterationClock()

    def _search(
        self, obs: Tensor, first: Tensor, task: Tensor | None, deadline: float | None, draws: PlanDraws | None
    ) -> Search:
        cfg, own = self.config, self.config.num_pi_trajs
        if len(obs) != self.robots:
            raise UserError(f"this package plans for {self.robots} robots at a time, not {len(obs)}")
        self._clock.start(deadline, self.robots)
        tasks = () if task is None else (task,)
        shape = (cfg.horizon, self.robots, self.action_dim)
        usable = self._mean is not None and self._mean.shape == shape
        previous = self._mean if usable else obs.new_zeros(shape)
        noise = self._draw(
            None if draws is None else draws.prior, (cfg.horizon, self.robots, own, self.action_dim)
        )
        terminal = self._terminal(0, draws)
        heads = self._pair(0, draws)
        latent, prior, mean, std, known = self._start(
            obs, first, previous, noise, terminal[:, :own].contiguous(), heads, *tasks
        )
        trace: list[Tensor] = []
        value, elites, weight = latent.new_full((self.robots,), torch.nan), None, None
        ended_by = "budget"
        for i in range(cfg.iterations):
            if not self._clock.fits(mean):
                ended_by = "deadline"
                break
            rows = (cfg.horizon, self.robots, cfg.num_samples - own, self.action_dim)
            noise = self._draw(None if draws is None else draws.samples[i], rows)
            if i:
                terminal = self._terminal(i, draws)
                heads = heads if cfg.reuse_prior_values else self._pair(i, draws)
            before = mean
            mean, std, value, values, best, weight = self._iterate(
                latent, prior, known, mean, std, noise, terminal, heads, *tasks
            )
            elites = best.unsqueeze(0)
            trace.append(values)
            if cfg.tolerance > 0 and float((mean[0] - before[0]).abs().max()) < cfg.tolerance:
                ended_by = "converged"
                break
        self._clock.end(mean)
        if elites is None:
            mean, std = prior.mean(2), prior.std(2, correction=0).clamp(cfg.min_std, cfg.max_std)
        return Search(latent, elites, weight, mean, std, value, ended_by, tuple(trace))

    def _draw(self, recorded: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        if recorded is not None:
            return recorded.contiguous()
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _terminal(self, i: int, draws: PlanDraws | None) -> Tensor:
        shape = (self.robots, self.config.num_samples, self.action_dim)
        return self._draw(None if draws is None else draws.terminal[i], shape)

    def _pair(self, i: int, draws: PlanDraws | None) -> Tensor:
        """Two distinct value heads (2,)."""
        if draws is not None:
            return draws.heads[i].to(self.device)
        if self.num_q <= 2:
            return torch.arange(2, device=self.device) % self.num_q
        return torch.randperm(self.num_q, generator=self._host_generator)[:2].to(self.device)


def _load(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The two compiled parts and what was written beside them."""
    from torch._inductor.package import load_package

    if not path.is_file():
        raise UserError(f"{path}: no such file; give a package written by tdmpc2 export --format aoti")
    try:
        parts = [load_package(str(path), name) for name in _PARTS]
        about = json.loads(parts[0].get_metadata()[_KEY])
    except Exception as error:  # the loader raises what zip, dlopen and the C++ runtime raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: is no planner package that runs here: {reason}") from None
    return parts[0], parts[1], about
