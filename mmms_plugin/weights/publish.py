"""``mmms publish``: a training checkpoint prepared for release, weights and meta only, with its hash in its name.

``meta.cfg``, the config of the run, is kept, so that a user can build the detector. Locations on the machine where it
ran are not: of every absolute path in ``meta`` only the last part is written. Anything in ``meta`` that is not plain
data is left out, so that torch reads the file with ``weights_only=True`` and without this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mmms_plugin.errors import UserError
from mmms_plugin.files import check_path, written_whole
from mmms_plugin.weights.files import SUFFIXES, Checkpoint, read_checkpoint, save_checkpoint, sha256_of

# Of mmengine's meta: where and when a run took place, which a user of the weights does not need.
PRIVATE = ("hook_msgs", "env_info", "exp_name", "experiment_name", "time", "seed")
ROOT = r"(?:file://)?(?:[A-Za-z]:[\\/]|~|[\\/])"
QUOTED = re.compile(rf"(?<=')({ROOT}[^'\n]*)(?=')|(?<=\")({ROOT}[^\"\n]*)(?=\")")  # may hold spaces
BARE = re.compile(rf"(?<![\w:/.\\'\"]){ROOT}[^\s'\"<>|,;()\[\]{{}}]*")
HASH_DIGITS = 8
ADAPTED = "mmms_plugin.ShapeAdaptor"
ADAPTED_TEXT = re.compile(r"\btype=(['\"])mmms_plugin\.ShapeAdaptor(?:ResNet|VGG|MobileNetV2)\1")


@dataclass(frozen=True)
class Published:
    """The written file, its size in bytes before and after, and what was left out."""

    path: Path
    before: int
    after: int
    stripped: tuple[str, ...]


def publish(source: str, prefix: str, freeze_shapes: bool = False) -> Published:
    """Write ``PREFIX-<first 8 hex digits of its SHA-256>.pth`` (or ``.safetensors`` if the prefix ends so).

    Args:
        freeze_shapes: set ``fixed_shape=True`` in the networks that ``meta`` describes, which makes the learned sizes
            of shape adaptors constant. Tensors stay as they are.
    Raises: UserError; then nothing is written.
    """
    target = check_path(prefix, "OUT_PREFIX")
    suffix = target.suffix if target.suffix in SUFFIXES else ".pth"
    stem = target.name.removesuffix(suffix)
    if not stem or target.is_dir():
        raise UserError(f"OUT_PREFIX {prefix}: give a file name, the hash and {suffix} are put behind it")
    checkpoint = read_checkpoint(source)
    if freeze_shapes:
        fix_shapes(checkpoint)
    safe = suffix == ".safetensors"
    with written_whole(
        target.with_name(f"{stem}{suffix}"), rename=lambda path: _named(target, stem, path)
    ) as temporary:
        meta = {key: value for key, value in checkpoint.meta.items() if key not in PRIVATE}
        state, meta = _plain_keys(checkpoint), without_places(meta)
        save_checkpoint(temporary, state, meta, checkpoint.head, safe=safe, functions=checkpoint.functions)
        final = _named(target, stem, temporary)
    private = (*checkpoint.left_out, *(key for key in PRIVATE if key in checkpoint.meta))
    stripped = (*checkpoint.beside, *(f"meta.{key}" for key in private))
    if safe and checkpoint.head:
        stripped += ("head",)
    return Published(final, checkpoint.path.stat().st_size, final.stat().st_size, stripped)


def fix_shapes(checkpoint: Checkpoint) -> None:
    """Let the configs in ``meta`` build shape adaptors of constant shape.

    ``meta.cfg`` is changed as text: nothing in a checkpoint is run.

    Raises: UserError if the file has no learned shape, or no config to change.
    """
    if not any(key.endswith(".alpha") for key in checkpoint.state):
        raise UserError(f"--freeze-shapes: {checkpoint.path} has no shape adaptor, its shape is fixed already")
    meta, changed = checkpoint.meta, 0
    backbone = meta.get("backbone")
    if isinstance(backbone, dict) and str(backbone.get("type")).startswith(ADAPTED):
        meta["backbone"], changed = {**backbone, "fixed_shape": True}, 1
    if isinstance(meta.get("cfg"), str) and "fixed_shape=True" in meta["cfg"]:
        changed += 1  # it was published so
    elif isinstance(meta.get("cfg"), str):
        meta["cfg"], places = ADAPTED_TEXT.subn(r"fixed_shape=True, \g<0>", meta["cfg"])
        changed += places
    if not changed:
        raise UserError(
            f"--freeze-shapes: the meta of {checkpoint.path} has no config of a ShapeAdaptor backbone, set "
            "fixed_shape=True in the config that the weights are used with"
        )


def _named(target: Path, stem: str, file: Path) -> Path:
    return target.with_name(f"{stem}-{sha256_of(file)[:HASH_DIGITS]}{file.suffix}")


def _plain_keys(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """Tensors under keys without DataParallel's prefix."""
    state, prefix = checkpoint.state, "module."
    if all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def without_places(value: Any) -> Any:
    """A plain value with absolute paths cut to their last part: ``/home/me/coco/`` becomes ``coco/``."""
    if isinstance(value, dict):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_places(inner) for inner in value)
    if not isinstance(value, str):
        return value
    if "\n" not in value and re.match(ROOT, value):
        return _last_part(value)
    value = QUOTED.sub(lambda match: _last_part(match[0]), value)
    return BARE.sub(lambda match: _last_part(match[0]), value)


def _last_part(path: str) -> str:
    """``/home/me/data/`` becomes ``data/``; ``/data`` reveals nothing about a machine and stays, as does a slash."""
    parts = re.split(r"[\\/]+", path.rstrip("\\/"))
    end = path[len(path.rstrip("\\/")) :][:1]
    return parts[-1] + end if len(parts) > 2 or path.startswith("~") else path
