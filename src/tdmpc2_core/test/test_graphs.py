"""Plan and update through fixed buffers equal the plain calls; on CUDA as captured graphs, too."""

from __future__ import annotations

import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.capture import CudaGraph, Eager, Repeat, best_repeat
from tdmpc2_core.learning import Batch, Learner, LearnerConfig
from tdmpc2_core.learning.graph import UpdateGraph
from tdmpc2_core.planning import MPPI, PlannerConfig
from tdmpc2_core.planning.graph import PlanGraph

CONFIG = PlannerConfig(num_samples=32, num_elites=6, num_pi_trajs=4, iterations=3, evaluation="sample")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def planner(device: str, **changes: object) -> MPPI:
    g = torch.Generator(device).manual_seed(3)
    return MPPI(small_model(num_q=5, **changes).to(device), CONFIG, 0.97, g)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("episodic", [False, True])
def test_plan_graph_equals_the_planner(device: str, evaluate: bool, episodic: bool) -> None:
    graph = PlanGraph(planner(device, episodic=episodic), 2, evaluate)
    plain = planner(device, episodic=episodic)
    heads = set()
    for i in range(4):
        obs = torch.randn(2, 9, generator=generator(i)).to(device)
        first = torch.tensor([i == 0, i % 2 == 0], device=device)
        plan = graph.plan(obs, first)
        draws = graph.repeat_draws()
        want = plain.plan(obs, first, evaluate, draws=draws)
        for name in ("action", "mean", "std", "value"):
            torch.testing.assert_close(getattr(plan, name), getattr(want, name), **CLOSE)
        heads |= {tuple(pair) for pair in draws.heads.tolist()}
        for model in (graph.planner.model, plain.model):  # both follow new weights
            with torch.no_grad():
                model.reward_head.layers[-1].weight.add_(0.1)
                model.q_heads.layers[0].norm_weight.mul_(1.1)
    assert len(heads) > 2 and all(a != b for a, b in heads)


def test_plan_graph_keeps_its_buffers() -> None:
    graph = PlanGraph(planner("cpu"), 1, True)
    weights = graph.planner.rollout.weights
    where = [
        t.data_ptr() for t in (graph.obs, graph.draws.samples, weights.reward.latent, weights.value[3].action)
    ]
    for _ in range(2):
        with torch.no_grad():
            graph.planner.model.reward_head.layers[0].weight.add_(0.1)
        graph.plan(torch.zeros(1, 9), torch.tensor([True]))
    same = (graph.obs, graph.draws.samples, weights.reward.latent, weights.value[3].action)
    assert where == [t.data_ptr() for t in same]


def test_plan_graph_says_what_it_cannot_do() -> None:
    g = generator()
    stops = PlannerConfig(num_samples=32, num_elites=6, num_pi_trajs=4, tolerance=0.1)
    with pytest.raises(ValueError, match="tolerance 0"):
        PlanGraph(MPPI(small_model(), stops, 0.97, g), 1, True)
    with pytest.raises(ValueError, match="fused"):
        PlanGraph(MPPI(small_model(), CONFIG, 0.97, g, fused=False), 1, True)


def batch(seed: int, device: str) -> Batch:
    g = generator(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    ended = (torch.rand(3, 8, 1, generator=g) < 0.2).float()
    made = Batch(normal(4, 8, 9), normal(3, 8, 4).tanh(), normal(3, 8, 1), ended, torch.ones(3, 8, 1))
    return made.to(device)


@pytest.mark.parametrize("device", DEVICES)
def test_update_graph_equals_the_learner(device: str) -> None:
    def learner() -> Learner:
        model = small_model(num_q=5, episodic=True).to(device)
        return Learner(model, LearnerConfig(), torch.Generator(device).manual_seed(5))

    plain, graphed = learner(), learner()
    graph = UpdateGraph(graphed, batch(99, device))
    before = [p.detach().clone() for p in plain.model.parameters()]
    version = graphed.model.reward_head.layers[0].weight._version
    for i in range(4):
        metrics = graph.update(batch(i, device))
        want = plain.update(batch(i, device), graph.repeat_draws())
        for name, value in want.items():
            torch.testing.assert_close(metrics[name], value, msg=name, **CLOSE)
    pairs = list(zip(graphed.model.parameters(), plain.model.parameters(), strict=True))
    for have, expected in pairs:
        torch.testing.assert_close(have, expected, **CLOSE)
    assert any(not torch.equal(a, b) for a, (b, _) in zip(before, pairs, strict=True))
    assert graphed.updates == 4 and graphed.model.reward_head.layers[0].weight._version > version


def test_what_a_device_repeats_with() -> None:
    assert isinstance(best_repeat(torch.device("cpu")), Eager)
    made: Repeat = best_repeat(torch.device("cuda"))
    assert isinstance(made, CudaGraph) and made.replays
