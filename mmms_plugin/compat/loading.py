"""How mmengine reads checkpoints, once it is imported: nothing in a file is run, and what mmengine saves can be read.

1. Local files are read by ``compat.checkpoints.load``. ``.safetensors`` files are checkpoints, too.
2. Files from a web address: torch's function for them runs whatever code they carry unless it is told not to, and
   mmengine 0.10.7 does not tell it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

SAFETENSORS = r".*\.safetensors$"  # mmengine matches schemes as regular expressions


def read_safely(module: ModuleType) -> None:
    """Change ``mmengine.runner.checkpoint``."""
    module.CheckpointLoader.register_scheme("", load_from_local, force=True)
    module.CheckpointLoader.register_scheme(SAFETENSORS, load_from_safetensors, force=True)
    if not hasattr(module.load_url, "__wrapped__"):
        module.load_url = _safely(module.load_url)  # type: ignore[attr-defined]


# mmengine writes the name of a loader, from the eleventh letter on, into the log.
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """As mmengine's: a file of ``torch.save``.

    Raises: FileNotFoundError.
    """
    from mmms_plugin.compat.checkpoints import load

    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{filename} can not be found.")
    return load(str(path), map_location=map_location)


def load_from_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """``dict(state_dict=..., meta=...)`` of a ``.safetensors`` file."""
    from mmms_plugin.weights.files import read_checkpoint

    checkpoint = read_checkpoint(Path(filename).expanduser())
    state = checkpoint.state
    if map_location is not None and not callable(map_location):
        state = {key: value.to(map_location) for key, value in state.items()}
    return dict(state_dict=state, meta=checkpoint.meta)


def _safely(load_url: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load_url)
    def load_url_safely(url: str, **options: Any) -> Any:
        from mmms_plugin.compat.checkpoints import load_by

        return load_by(lambda: load_url(url, **{**options, "weights_only": True}))

    return load_url_safely
