"""Episode stores to and from the HDF5 layout of Minari 0.5 (https://minari.farama.org), without Minari."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2_core.data.episodes import Episode, EpisodeStore, read_episode, stored_files
from tdmpc2_core.data.exchange.tables import PLANS
from tdmpc2_core.errors import UserError, missing_extra
from tdmpc2_core.files import making, write_text

_RAW = "raw."
_FILE = "data/main_data.hdf5"


def _hdf5() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise missing_extra("Minari", "h5py") from None
    return h5py


def export_minari(store: Path, out: Path) -> None:
    """Write a store as a data set in a new folder, which `minari.MinariDataset(out / "data")` opens.

    Raises UserError: nothing to export, a damaged episode, images, `out` exists.
    """
    h5py, files, total = _hdf5(), stored_files(store), 0
    with making(out) as folder:
        (folder / "data").mkdir()
        with h5py.File(folder / _FILE, "w", track_order=True) as file:
            for number, path in enumerate(files):
                episode, metadata = read_episode(path)
                if episode.pixels is not None:
                    raise UserError(f"{path}: has images, which are not exported")
                _write(file.create_group(f"episode_{number}"), number, episode, metadata)
                total += len(episode)
        name = re.sub(r"[^A-Za-z0-9]+", "-", out.resolve().name).strip("-") or "episodes"
        size = (folder / _FILE).stat().st_size / 1e6
        content = {
            "dataset_id": f"tdmpc2/{name}-v0",
            "minari_version": "0.5.4",
            "data_format": "hdf5",
            "total_episodes": len(files),
            "total_steps": total,
            "dataset_size": round(size, 1),
            "jpeg_encoding": False,
            "observation_space": _space(episode.observation.shape[1:], np.inf),
            "action_space": _space(episode.action.shape[1:], 1.0),
        }
        write_text(folder / "data/metadata.json", json.dumps(content) + "\n")


def _space(shape: tuple[int, ...], most: float) -> str:
    """A Box of Gymnasium, as Minari writes it."""
    low, high = np.full(shape, -most).tolist(), np.full(shape, most).tolist()
    return json.dumps({"type": "Box", "dtype": "float32", "shape": list(shape), "low": low, "high": high})


def _write(group: Any, number: int, episode: Episode, metadata: dict[str, Any]) -> None:
    steps = len(episode)
    group.attrs.update({"id": number, "total_steps": steps, "task": episode.task})
    group.attrs["metadata"] = json.dumps(metadata)
    ended = np.zeros(steps, bool)
    ended[-1] = episode.truncated
    arrays = {
        "observations": episode.observation,
        "actions": episode.action,
        "rewards": episode.reward,
        "terminations": episode.terminated,
        "truncations": ended,
    }
    arrays |= {f"infos/{name}": getattr(episode, name) for name in PLANS}
    arrays |= {f"infos/{_RAW}{name}": values for name, values in episode.raw.items()}
    for name, values in arrays.items():
        group.create_dataset(name, data=values)


def import_minari(folder: Path, out: Path) -> int:
    """Write a data set as a new store; returns the number of episodes.

    Raises UserError: no data set of HDF5, observations or actions that are no vectors, `out` exists.
    """
    h5py = _hdf5()
    path = next((p for p in (folder / _FILE, folder / Path(_FILE).name) if p.is_file()), None)
    if path is None:
        raise UserError(f"{folder}: is no data set of Minari in HDF5 (no {_FILE})")
    with making(out) as made:
        store = EpisodeStore(made)
        try:
            with h5py.File(path, "r") as file:
                names = [name for name in file if re.fullmatch(r"episode_\d+", name)]
                for name in sorted(names, key=lambda name: int(name.rpartition("_")[2])):
                    metadata = json.loads(file[name].attrs.get("metadata", '{"source": "minari"}'))
                    store.append(_read(file[name], f"{path}: {name}"), **metadata)
        except (OSError, KeyError, ValueError) as problem:
            raise UserError(f"{path}: is not a whole data set ({problem})") from None
        if not len(store):
            raise UserError(f"{path}: holds no episodes")
        return len(store)


def _read(group: Any, place: str) -> Episode:
    for name in ("observations", "actions"):
        if not hasattr(group[name], "shape") or len(group[name].shape) != 2:
            raise UserError(f"{place}: {name} are no vectors; only vectors are read")
    action = group["actions"][()].astype(np.float32)
    steps = len(action)
    values = {
        "plan_mean": np.zeros_like(action),
        "plan_std": np.zeros_like(action),
        "has_plan": np.zeros(steps, bool),
        "value": np.full(steps, np.nan, np.float32),
    }
    infos = group.get("infos", {})
    if all(name in infos for name in PLANS):
        values = {name: infos[name][()] for name in PLANS}
    return Episode(
        observation=group["observations"][()].astype(np.float32),
        action=action,
        reward=group["rewards"][()].astype(np.float32),
        terminated=group["terminations"][()].astype(bool),
        **values,
        truncated=bool(group["truncations"][-1]),
        task=int(group.attrs.get("task", 0)),
        raw={name.removeprefix(_RAW): infos[name][()] for name in infos if name.startswith(_RAW)},
    )
