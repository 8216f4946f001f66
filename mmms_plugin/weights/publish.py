"""``mmms publish``: a training checkpoint as it is released, weights and meta only, named with its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmms_plugin.errors import UserError
from mmms_plugin.files import written_whole
from mmms_plugin.weights.files import SUFFIXES, Checkpoint, read_checkpoint, save_checkpoint, sha256_of

# Of mmengine's meta: where and when a run took place, nothing that a user of the weights needs.
PRIVATE = ("hook_msgs", "env_info", "exp_name", "experiment_name", "time", "seed")
HASH_DIGITS = 8


@dataclass(frozen=True)
class Published:
    """The file written, its sizes in bytes before and after, and what was left out."""

    path: Path
    before: int
    after: int
    stripped: tuple[str, ...]


def publish(source: str, prefix: str) -> Published:
    """Write ``PREFIX-<first 8 hex digits of its SHA-256>.pth`` (or ``.safetensors`` if the prefix ends so).

    Raises: UserError; then nothing is written.
    """
    target = Path(prefix)
    suffix = target.suffix if target.suffix in SUFFIXES else ".pth"
    stem = target.name.removesuffix(suffix)
    if not stem or target.is_dir():
        raise UserError(f"OUT_PREFIX {prefix}: give a file name, the hash and {suffix} are put behind it")
    checkpoint = read_checkpoint(source)
    safe = suffix == ".safetensors"
    with written_whole(
        target.with_name(f"{stem}{suffix}"), rename=lambda path: _named(target, stem, path)
    ) as temporary:
        meta = {key: value for key, value in checkpoint.meta.items() if key not in PRIVATE}
        save_checkpoint(temporary, _plain(checkpoint), meta, checkpoint.head, safe=safe)
        final = _named(target, stem, temporary)
    stripped = (*checkpoint.beside, *(f"meta.{key}" for key in PRIVATE if key in checkpoint.meta))
    if safe and checkpoint.head:
        stripped += ("head",)
    return Published(final, checkpoint.path.stat().st_size, final.stat().st_size, stripped)


def _named(target: Path, stem: str, file: Path) -> Path:
    return target.with_name(f"{stem}-{sha256_of(file)[:HASH_DIGITS]}{file.suffix}")


def _plain(checkpoint: Checkpoint) -> dict[str, Any]:
    """Detached tensors under keys without DataParallel's prefix."""
    state, prefix = checkpoint.state, "module."
    if all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value.detach() for key, value in state.items()}
    return {key: value.detach() for key, value in state.items()}
