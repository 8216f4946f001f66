"""Checkpoints that survive a killed process or a full disk, in every run of mmengine.

mmengine 0.10.7 writes checkpoints and ``last_checkpoint`` in place, and removes an outdated checkpoint
(``max_keep_ckpts``, ``save_best``) before it writes the new one. Here each file is written whole
(``files.written_whole``), and outdated checkpoints are removed once their successor is on the disk.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from mmms_plugin.files import written_whole

ZIP = b"PK\x03\x04"  # first bytes of a file of torch.save


def write_whole(module: ModuleType) -> None:
    """Let mmengine's ``LocalBackend`` write checkpoints whole. Other files are written as before, which is faster."""
    backend = module.LocalBackend
    if hasattr(backend.put, "__wrapped__"):
        return
    plain = backend.put

    @functools.wraps(plain)
    def put(self: Any, obj: bytes, filepath: str | Path) -> None:
        if obj[: len(ZIP)] != ZIP:
            return plain(self, obj, filepath)
        with written_whole(filepath) as temporary:
            temporary.write_bytes(obj)

    backend.put = put


def remove_last(module: ModuleType) -> None:
    """Let mmengine's ``CheckpointHook`` remove outdated checkpoints last, and write ``last_checkpoint`` whole."""
    module.open = _opened_whole  # type: ignore[attr-defined]  # used there for last_checkpoint only
    for name in ("_save_checkpoint_with_step", "_save_best_checkpoint"):
        method = getattr(module.CheckpointHook, name)
        if not hasattr(method, "__wrapped__"):
            setattr(module.CheckpointHook, name, _with_removals_last(method))


@contextmanager
def _opened_whole(path: str, mode: str = "r") -> Iterator[IO]:
    if "w" not in mode:
        with open(path, mode, encoding="utf-8") as file:
            yield file
        return
    with written_whole(path) as temporary, temporary.open(mode, encoding="utf-8") as file:
        yield file


def _with_removals_last(save: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(save)
    def save_then_remove(self: Any, *args: Any, **kwargs: Any) -> None:
        backend, later = self.file_backend, _LaterRemovals(self.file_backend)
        self.file_backend = later
        try:
            save(self, *args, **kwargs)
        finally:
            self.file_backend = backend
        best = getattr(self, "best_ckpt_path_dict", {}).values()
        later.remove_all(spared={self.last_ckpt, getattr(self, "best_ckpt_path", None), *best})

    return save_then_remove


class _LaterRemovals:
    """A file backend that records removals in place of making them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._removals: list[tuple[Callable[[str], None], str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self._removals.append((self._backend.rmtree, path))

    def remove_all(self, spared: set[str | None]) -> None:
        """Make the recorded removals, except those of current checkpoints."""
        from mmengine.logging import print_log

        for remove, path in self._removals:
            if path in spared:
                continue
            try:
                remove(path)
            except OSError as error:  # on Windows, while another program reads it
                print_log(f"{path} cannot be removed ({error.strerror}) and is kept", "current", logging.WARNING)
