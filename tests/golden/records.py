"""Golden records: keys, shapes and outputs of the authors' own models, and how to remake their weights and inputs.

Each JSON file here holds, for one published architecture, ``tensors`` (``[key, shape, dtype, kind, ...]``; ``kind``
says how the value is drawn) and ``cases`` (input shape and seed; per output its shape, mean, std and 24 values). All
outputs were taken in eval mode. Those of torchvision, timm and OpenMMLab were taken the same way from the models of
torchvision 0.29.2, timm 1.0.31 and mmpretrain 1.2.0.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load_record(name: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))


def make_state_dict(record: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The authors' state dict, drawn tensor by tensor from the key's CRC-32."""
    groups = 32 if "32x4d" in record["arch"] else 1
    return {key: _make_tensor(key, *rest, groups=groups) for key, *rest in record["tensors"]}


def published_file(record: dict[str, Any], path: Path) -> Path:
    """Save the state dict as the authors' file holds it: bare, or with keys of DataParallel beside an optimizer."""
    state, layout = make_state_dict(record), record["file_format"]
    if "module." in layout and "may carry" not in layout:
        state = {f"module.{key}": value for key, value in state.items()}
    if layout.startswith("torch.save("):
        beside = dict(epoch=90, arch=record["arch"], best_prec1=torch.tensor(78.4), optimizer={"state": {}})
        state = {**beside, "state_dict": state} if "arch" in layout else {"epoch": 50, "state_dict": state}
    torch.save(state, path)
    return path


def make_input(case: dict[str, Any]) -> torch.Tensor:
    rs = np.random.RandomState(case["input"]["seed"])
    return torch.from_numpy(rs.standard_normal(case["input"]["shape"]).astype(np.float32))


def _make_tensor(key: str, shape: list[int], dtype: str, kind: str, extra: Any = None, *, groups: int) -> torch.Tensor:
    rs = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    if kind in ("conv", "conv_masked"):
        value = rs.standard_normal(shape) * math.sqrt(1.4 / math.prod(shape[1:]))
    elif kind in ("gamma", "var"):
        value = rs.uniform(0.5, 1.5, shape)
    elif kind == "gamma_small":
        value = rs.uniform(0.1, 0.3, shape)
    elif kind in ("beta", "mean"):
        value = 0.1 * rs.standard_normal(shape)
    elif kind == "zero_int":
        value = np.zeros(shape)
    elif kind == "value":
        value = np.asarray(extra).reshape(shape)
    else:
        raise ValueError(f"kind={kind!r} of {key}: unknown")
    if kind == "conv_masked":
        mask = _published_mask(shape, groups)
        assert int(mask.sum()) == extra
        value[mask] = 0
    return torch.from_numpy(np.asarray(value, dtype=dtype))


def _published_mask(shape: list[int], groups: int) -> np.ndarray:
    """Row blocks ``i + j * groups`` and columns i, (i + 2) mod 4 of the dilation-1 weight, as the authors index."""
    mask = np.zeros(shape, dtype=bool)
    rows, columns = shape[0] // (4 * groups), shape[1] // 4
    for i in range(4):
        for j in range(groups):
            for k in (i, (i + 2) % 4):
                row = i + j * groups
                mask[row * rows : (row + 1) * rows, k * columns : (k + 1) * columns] = True
    return mask
