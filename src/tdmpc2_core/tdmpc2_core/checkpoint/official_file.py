"""Opens a .pt file of unknown origin: no code in it is run, and no damage goes further than an error."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.errors import UserError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a file that holds a state dict, or a dict with key "model", on the CPU.

    The archive's checksums are verified before torch sees it, and every tensor must lie inside its record.

    Raises:
        UserError: the file is missing, damaged, no PyTorch file, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: give the path of an official TD-MPC2 checkpoint (.pt)")
    records = _checked_records(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for content that is not a plain state dict
        raise UserError(f"{path} is not a weights-only PyTorch file: {_first_line(error)}") from None
    content = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UserError(
            f'{path} holds no state dict: expected a dict with key "model", or the state dict itself'
        )
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    for key, value in state.items():
        _check_tensor(key, value, records, path)
    return state


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _checked_records(path: Path) -> set[int]:
    """Sizes (bytes) of the archive's records, all of whose checksums hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            sizes = {entry.file_size for entry in archive.infolist()}
    except Exception as error:  # zipfile too: a flipped bit reaches struct, zlib, encodings, memory
        raise UserError(
            f"{path} is not a weights-only PyTorch file, or a damaged one: {_first_line(error)}"
        ) from None
    if damaged is not None:
        raise UserError(f"{path} is damaged: the checksum of {damaged} differs; download the file again")
    return sizes


def _check_tensor(key: str, value: Tensor, records: set[int], path: Path) -> None:
    plain: Any = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or value.is_complex():
        raise UserError(
            f"{path}: tensor {key!r} is no plain tensor of numbers: {value.dtype}, {value.layout}"
        )
    held = value.untyped_storage().nbytes()
    if held not in records or value.numel() * value.element_size() > held:
        raise UserError(
            f"{path}: tensor {key!r} of shape {tuple(value.shape)} does not fit its record of the file"
        )
