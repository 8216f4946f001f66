"""How mmengine reads checkpoints with the plugin: nothing in a file is run, and what mmengine saves can be read.

1. ``weights.reader`` reads all files, also those from a web address, for which mmengine 0.10.7 calls a function of
   torch that runs any code they carry. ``.safetensors`` files are checkpoints, too.
2. On resuming, mmengine runs ``meta.config`` of the file as Python, and later deletes the file or folder that the file
   names as the best checkpoint. ``meta.config`` is removed, and only a ``best_*.pth`` beside the file may be named.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

SAFETENSORS = r".*\.safetensors$"  # mmengine matches schemes as regular expressions
BEST = re.compile(r"best_.+\.pth")  # a name, without folders


def read_safely(module: ModuleType) -> None:
    """Change ``mmengine.runner.checkpoint``."""
    module.CheckpointLoader.register_scheme("", load_from_local, force=True)
    module.CheckpointLoader.register_scheme(SAFETENSORS, load_from_safetensors, force=True)
    module.load_url = load_url  # type: ignore[attr-defined]


# mmengine logs the name of a loader from the eleventh letter on.
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """As mmengine's: a file of ``torch.save``.

    Raises: FileNotFoundError; UserError for a file that is damaged, holds more than data, or would hang the reader.
    """
    from mmms_plugin.weights.reader import read

    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{filename} can not be found.")
    return disarmed(read(path, map_location, mapped=False), path.parent)


def load_from_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """``dict(state_dict=..., meta=...)`` of a ``.safetensors`` file."""
    from mmms_plugin.weights.files import read_checkpoint, with_functions

    checkpoint = read_checkpoint(Path(filename).expanduser())
    state = checkpoint.state
    if map_location is not None and not callable(map_location):
        state = {key: value.to(map_location) for key, value in state.items()}
    content = dict(state_dict=with_functions(state, checkpoint.functions), meta=checkpoint.meta)
    return disarmed(content, checkpoint.path.parent)


def disarmed(content: Any, folder: Path | None) -> Any:
    """Remove from a checkpoint what mmengine would run, and names of files that it would delete.

    Args:
        content: of the file; changed in place.
        folder: of the file, or None if unknown.
    """
    (_dict_in(content, "meta") or {}).pop("config", None)
    info = _dict_in(_dict_in(content, "message_hub"), "runtime_info") or {}
    for key in [key for key in info if isinstance(key, str) and key.startswith("best_ckpt")]:
        path = folder / Path(info[key]).name if folder is not None and isinstance(info[key], str) else None
        if path is not None and BEST.fullmatch(path.name) and path.is_file():
            info[key] = str(path)
        else:
            del info[key]
    if "keep_ckpt_ids" in info:  # parts of the names of older checkpoints, to be deleted
        ids = info["keep_ckpt_ids"]
        info["keep_ckpt_ids"] = [step for step in ids if type(step) is int] if isinstance(ids, list) else []
    return content


def _dict_in(content: Any, key: str) -> Any:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, dict) else None


def load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """As ``torch.hub.load_state_dict_from_url``: downloads a file unless it is there, and reads it.

    Args:
        weights_only: ignored; only data is ever read.
    Raises: UserError for a file that is damaged or holds more than data.
    """
    from torch import hub

    from mmms_plugin.weights.reader import read

    path = Path(model_dir or Path(hub.get_dir(), "checkpoints"), file_name or Path(urlparse(url).path).name)
    return disarmed(read(downloaded(url, path, progress, check_hash), map_location, mapped=False), None)


def downloaded(url: str, path: Path, progress: bool = True, check_hash: bool = False) -> Path:
    """Download a file, whole or not at all, unless it is there; returns its path.

    Args:
        progress: show a bar.
        check_hash: compare the file with the part of its SHA-256 that its name states, as torch does.
    """
    from torch import hub

    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        print(f'Downloading: "{url}" to {path}')
        stated = hub.HASH_REGEX.search(path.name) if check_hash else None
        hub.download_url_to_file(url, str(path), stated[1] if stated else None, progress=progress)
    return path
