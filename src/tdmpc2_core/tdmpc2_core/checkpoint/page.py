"""What a bundle holds, as a page to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tdmpc2_core.checkpoint.bundle import Bundle
from tdmpc2_core.config import to_mapping


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """Everything but the weights, as plain data for JSON."""
    return {
        "robot": bundle.embodiment.name if bundle.embodiment else None,
        "bodies": {robot.name: robot.fingerprint for robot in bundle.bodies},
        "tasks": list(bundle.tasks),
        "discount": bundle.discount,
        "control_period": bundle.control_period,
        "model": to_mapping(bundle.model_config),
        "planner": to_mapping(bundle.planner),
        "provenance": dict(bundle.provenance),
        "measured": [dict(row) for row in bundle.measured],
    }


def bundle_page(bundle: Bundle) -> str:
    """Sizes, robot, planner, training and measured returns; a line each."""
    return "\n".join(f"{name:<12}{text}".rstrip() for name, text in _lines(bundle))


def _lines(bundle: Bundle) -> Iterator[tuple[str, str]]:
    model, planner = bundle.model_config, bundle.planner
    for number, robot in enumerate(bundle.robots.values()):
        heading = "bodies" if bundle.bodies else "robot"
        yield "" if number else heading, f"{robot.name}: {robot.num_joints} joints, {robot.control_rate:g} Hz"
        yield "", f"commands {robot.command.kind if robot.command else 'none'}; {robot.fingerprint[:12]}"
        if bundle.bodies:
            yield "", f"observation {robot.observation_dim}, action {robot.action_dim}"
    if bundle.tasks:
        yield "tasks", ", ".join(bundle.tasks)
    yield "model", f"observation {model.obs_dim}, action {model.action_dim}, latent {model.latent_dim}"
    yield "", f"encoder {model.enc_dim}, layers {model.mlp_dim} wide, {model.num_q} value heads"
    yield "discount", f"{bundle.discount:g} per decision"
    if planner.method == "policy":
        yield "planner", "policy prior alone"
    else:
        yield "planner", f"{planner.method}: horizon {planner.horizon}, {planner.iterations} iterations"
        yield "", f"{planner.num_samples} candidates, {planner.num_pi_trajs} of the prior"
    yield from _training(bundle.provenance)
    for number, row in enumerate(bundle.measured):
        yield "" if number else "measured", ", ".join(f"{key} {_brief(row[key])}" for key in row)


def _training(provenance: Any) -> Iterator[tuple[str, str]]:
    """The scalars of the provenance; `--json` has its settings too."""
    name = "training"
    for key, value in provenance.items():
        if not isinstance(value, dict | list):
            yield name, f"{key.replace('_', ' ')} {_brief(value)}"
            name = ""
        elif key == "evaluation":
            yield name, "evaluation " + ", ".join(f"{k} {_brief(v)}" for k, v in dict(value).items())
            name = ""


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
