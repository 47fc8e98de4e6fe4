"""Names of the tensors in the three layouts in which official TD-MPC2 checkpoints were published.

`current`: nested value heads, ``_Qs.params.0.ln.weight``. `first release` (October 2023): ten flat tensors,
``_Qs.params.0`` to ``.9``. `before release`: additionally, every network is a flat sequence in which linear
maps, LayerNorms and activations count apart (``_dynamics.0.3.weight``, encoder starting at index 1), as found
in some single-task files. Everything is brought to the names of the current layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from tdmpc2_core.errors import UserError

FIELDS = {"weight": "weight", "bias": "bias", "ln.weight": "norm_weight", "ln.bias": "norm_bias"}
"""Tensors of a layer: official name, name in this package; in the order of the flat value heads."""

PARTS = {
    "_encoder.state": "encoder.layers",
    "_dynamics": "dynamics.layers",
    "_reward": "reward_head.layers",
    "_termination": "termination_head.layers",
    "_pi": "policy_head.layers",
    "_Qs.params": "q_heads.layers",
    "_target_Qs_params": "target_q_heads.layers",
}
"""Networks: prefix in the official file, prefix in this package."""

PIXEL_LAYERS = (2, 4, 6, 8)
"""Indices of the convolutions in ``_encoder.rgb``, after augmentation and scaling."""

_FLAT_Q = re.compile(r"^(_Qs\.params|_target_Qs\.params)\.(\d+)$")
_LAYER = re.compile(r"^(.+?)\.(\d+)\.((?:ln\.)?(?:weight|bias))$")
_IGNORED = re.compile(r"^_detach_Qs_params\.|__batch_size$|__device$|^log_std_(min|dif)$|^_action_masks$")
_SEQUENCE = re.compile(r"^(_encoder\.state|_dynamics\.0|_reward|_pi|_termination)\.(\d+)\.(weight|bias)$")
_SHOWN = 6  # names listed when a file is not understood


def layout_of(names: Iterable[str], path: str | Path) -> str:
    """`current`, `first release` or `before release`.

    Raises:
        UserError: none of them; the sentence lists what was found.
    """
    found = set(names)
    if "_dynamics.0.0.weight" in found:
        return "before release"
    if "_Qs.params.0.weight" in found:
        return "current"
    if "_Qs.params.0" in found:
        return "first release"
    shown = ", ".join(sorted(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    raise UserError(
        f"{path} is in none of the published TD-MPC2 layouts: expected _Qs.params.0.weight, _Qs.params.0 or "
        f"_dynamics.0.0.weight among its tensors, found {len(found)}: {shown or 'none'}"
    )


def to_current(raw: Mapping[str, Tensor], path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """Layout of the file, and its weights under the names of the current layout, copies left out.

    Raises:
        UserError: another layout, or a network is missing.
    """
    layout = layout_of(raw, path)
    state: dict[str, Tensor] = {}
    for key, value in raw.items():
        flat = _FLAT_Q.match(key)
        if flat:
            prefix = flat.group(1).replace("_target_Qs.params", "_target_Qs_params")
            layer, field = divmod(int(flat.group(2)), len(FIELDS))
            state[f"{prefix}.{layer}.{tuple(FIELDS)[field]}"] = value
        elif layout == "before release" and not _IGNORED.search(key):
            state[_from_sequence(key)] = value
        elif not _IGNORED.search(key):
            state[key] = value
    networks = ("_dynamics.2", "_reward.2", "_pi.2", "_Qs.params.2", "_target_Qs_params.2")
    missing = [f"{part}.weight" for part in networks if f"{part}.weight" not in state]
    if missing:
        raise UserError(f"{path} ({layout} layout) lacks {', '.join(missing)}; download the file again")
    return layout, state


def _from_sequence(key: str) -> str:
    """Current name of a tensor of the layout before release: three places per layer, linear and LayerNorm."""
    final = re.match(r"^_dynamics\.1\.(weight|bias)$", key)
    if final:
        return f"_dynamics.2.ln.{final.group(1)}"
    match = _SEQUENCE.match(key)
    if not match:
        return key
    part, place = match.group(1), int(match.group(2)) - (match.group(1) == "_encoder.state")
    layer, kind = divmod(place, 3)
    name = part.removesuffix(".0") if part.startswith("_dynamics") else part
    return f"{name}.{layer}.{'ln.' if kind == 1 else ''}{match.group(3)}"


def to_package(state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Weights under the names of this package from those of the current layout.

    Raises:
        UserError: a tensor that belongs to no network.
    """
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        match = _LAYER.match(key)
        if key == "_task_emb.weight":
            result["task_embedding"] = value
        elif match and match.group(1) == "_encoder.rgb" and int(match.group(2)) in PIXEL_LAYERS:
            place = PIXEL_LAYERS.index(int(match.group(2)))
            result[f"encoder.convolutions.{place}.{match.group(3)}"] = value
        elif match and match.group(1) in PARTS:
            result[f"{PARTS[match.group(1)]}.{match.group(2)}.{FIELDS[match.group(3)]}"] = value
        else:
            raise UserError(
                f"{path} holds an unknown tensor {key!r}: not a layout of the official TD-MPC2 code"
            )
    return result


def to_official(name: str) -> str:
    """Name in the current official layout of a parameter of this package."""
    if name == "task_embedding":
        return "_task_emb.weight"
    part, place, field = name.rsplit(".", 2)
    if part == "encoder.convolutions":
        return f"_encoder.rgb.{PIXEL_LAYERS[int(place)]}.{field}"
    prefix = next(official for official, own in PARTS.items() if own == part)
    return f"{prefix}.{place}.{next(official for official, own in FIELDS.items() if own == field)}"
