"""Damaged checkpoints, one kind of damage per seed, and what happens when they are loaded."""

from __future__ import annotations

import json
import random
import shutil
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from planning_support import small_model
from torch import Tensor

from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.checkpoint.bundle import Bundle, load_bundle, save_bundle
from tdmpc2_core.checkpoint.official import load_official
from tdmpc2_core.checkpoint.official_convert import official_state_dict
from tdmpc2_core.errors import UserError
from tdmpc2_core.planning import PlannerConfig

TASKS = {"task_dim": 4, "action_dims": (4, 2)}
JUNK = [None, -1, 0, 1e300, 10**9, "x", [], {}, [1, "a"], True, float(2**60), "mppi", [[]], {"a": {}}]
State = dict[str, Any]


class Originals:
    """Whole checkpoints in a folder: `new.pt`, `tasks.pt`, `bundle/`; and the weights that they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        models = {"new.pt": small_model(episodic=True).eval(), "tasks.pt": small_model(**TASKS).eval()}
        self.weights = {name: model.state_dict() for name, model in models.items()}
        for name, model in models.items():
            torch.save({"model": official_state_dict(model)}, folder / name)
        model = models["new.pt"]
        save_bundle(folder / "bundle", Bundle(model.state_dict(), model.config, PlannerConfig(), 0.9, 0.02))
        self.weights["bundle"] = model.state_dict()


def damage_bytes(data: bytearray, r: random.Random) -> bytearray:
    """Flipped bits, a cut, a block of zeros, doubled or foreign bytes: what disks and transfers do."""
    if not data:
        return data
    kind, at = r.randrange(5), r.randrange(len(data))
    if kind == 0:
        for _ in range(r.choice((1, 1, 2, 8))):
            data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at : at + r.choice((1, 16, 512))] = bytes(min(16, len(data) - at))
    elif kind == 3:
        data[at:at] = data[at : at + 64]
    else:
        data[at : at + 4] = r.randbytes(4)
    return data


def damage_tensor(value: Tensor, r: random.Random) -> Any:
    """Another shape, type or content, or no tensor at all."""
    changes: list[Callable[[], Any]] = [
        lambda: value.flatten(),
        lambda: value.unsqueeze(0),
        lambda: value[:1] if value.ndim else value,
        lambda: torch.cat([value, value], -1) if value.ndim else value.repeat(3),
        lambda: torch.zeros(0),
        lambda: torch.tensor(1.0),
        lambda: value.long(),
        lambda: value.bool(),
        lambda: value.to(torch.complex64),
        lambda: torch.full_like(value.float(), r.choice((float("nan"), float("inf")))),
        lambda: torch.zeros(1).expand(10**7, 10**5),
        lambda: value.float().to_sparse(),
        lambda: r.choice(JUNK),
        lambda: value.double(),
        lambda: value.t() if value.ndim == 2 else value,
    ]
    return r.choice(changes)()


def damage_state(state: State, r: random.Random) -> State:
    """One or a few entries changed, lost, renamed or added."""
    for _ in range(r.choice((1, 1, 3))):
        keys = [key for key, value in state.items() if isinstance(value, Tensor)]
        if not keys:
            return state
        key, kind = r.choice(keys), r.randrange(6)
        if kind == 0:
            del state[key]
        elif kind == 1:
            state[r.choice((key[:-1], key + ".0", key.replace("0", "7"), "", "_Qs.params.99"))] = state.pop(
                key
            )
        elif kind == 2:
            state[r.choice(("_surprise", "_Qs.params.0", "_dynamics.0.0.weight", "_pi.x.weight"))] = state[
                key
            ]
        else:
            state[key] = damage_tensor(state[key], r)
    return state


def repack(path: Path, r: random.Random) -> None:
    """Damage one record of a .pt file and write the archive anew, so that its checksums hold."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = next(n for n in records if n.endswith("data.pkl")) if r.random() < 0.7 else r.choice(list(records))
    records[name] = bytes(damage_bytes(bytearray(records[name]), r))
    if r.random() < 0.2:
        records.pop(r.choice(list(records)))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def damage_json(content: Any, r: random.Random) -> Any:
    """One value somewhere in a nest of dicts and lists replaced, or an entry removed."""
    inner = (
        [v for v in content.values() if isinstance(v, (dict, list)) and v]
        if isinstance(content, dict)
        else []
    )
    if inner and r.random() < 0.6:
        damage_json(r.choice(inner), r)
    elif isinstance(content, dict) and content:
        key = r.choice(list(content))
        if r.random() < 0.3:
            del content[key]
        else:
            content[key] = r.choice(JUNK)
    elif isinstance(content, list):
        content.append(r.choice(JUNK))
    return content


def damage_bundle(folder: Path, r: random.Random) -> bool:
    """Damage a bundle; True when only bytes were damaged, False when its checksums were made to hold."""
    kind = r.randrange(4)
    if kind == 0:
        path = folder / r.choice(("bundle.json", "weights.safetensors"))
        path.write_bytes(damage_bytes(bytearray(path.read_bytes()), r))
        return True
    if kind == 1:
        (folder / r.choice(("bundle.json", "weights.safetensors"))).unlink()
        return True
    content = json.loads((folder / "bundle.json").read_text())["content"]
    weights = folder / "weights.safetensors"
    if kind == 2:
        damaged = damage_state(safetensors.torch.load(weights.read_bytes()), r)
        plain = {k: v.contiguous().clone() for k, v in damaged.items() if _storable(v)}
        weights.write_bytes(safetensors.torch.save(plain))
        content["files"]["weights.safetensors"] = manifest.digest(weights.read_bytes())
    else:
        damage_json(content, r)
    manifest.write(folder, content)
    return False


def _storable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.numel() < 10**6


def attempt(originals: Originals, work: Path, seed: int) -> tuple[str, str]:
    """Kind of the damage, and "error", "loaded", or what went wrong.

    A file whose bytes alone were damaged must give the original weights if it loads at all.
    """
    r = random.Random(seed)
    source = r.choice(("new.pt", "tasks.pt", "bundle", "bundle"))
    target = work / source
    if source == "bundle":
        shutil.copytree(originals.folder / source, target)
        kind, bytes_only = "bundle", damage_bundle(target, r)
    else:
        shutil.copy(originals.folder / source, target)
        choice = r.randrange(3)
        kind, bytes_only = ("bytes", "repacked", "state")[choice], choice == 0
        if choice == 0:
            target.write_bytes(damage_bytes(bytearray(target.read_bytes()), r))
        elif choice == 1:
            repack(target, r)
        else:
            state = damage_state(torch.load(target, weights_only=True)["model"], r)
            torch.save(r.choice(({"model": state}, state, {"model": list(state)})), target)
    try:
        model = load_bundle(target).build_model() if source == "bundle" else load_official(target)
        same = all(
            torch.equal(v, originals.weights[source].get(k, v * 0 - 1)) for k, v in model.state_dict().items()
        )
        outcome = "loaded" if same or not bytes_only else f"{source}: damaged bytes changed the weights"
    except UserError as error:
        outcome = "error" if "\n" not in str(error) else f"error of several lines: {error}"
    except Exception:
        outcome = traceback.format_exc()
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    return kind, outcome
