"""The checkpoint that a run resumes from: the newest whole one in its folder.

mmengine 0.10.7 relies on ``last_checkpoint``, a file with an absolute path. Without that file it starts from scratch
beside existing checkpoints. It fails if the folder was moved, the file is empty or the checkpoint is damaged.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from mmms_plugin.errors import UserError, first_line, shown
from mmms_plugin.files import replace
from mmms_plugin.report.run_results import FILES, SAMPLES
from mmms_plugin.weights.reader import read

NUMBERED = re.compile(r"(?:iter|epoch)_(\d+)\.pth")
NEEDED = ("state_dict", "optimizer", "message_hub", "meta")  # to resume


def newest_checkpoint(folder: str | Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to resume from, and remarks for the user about the choice.

    Checkpoints with a higher number that are newer than the file named in ``last_checkpoint`` come first (it is written
    after them), then that file, which is looked for in ``folder`` itself, so that the folder may be moved, then the
    others, the highest number first.
    """
    remarks: list[str] = []
    named = _named(Path(folder))
    for path in _candidates(Path(folder), named):
        fault = why_unusable(path)
        if fault is None:
            return path, [*remarks, f"--resume: going on from {path}, the newest whole checkpoint"]
        remarks.append(f"--resume: {path} is left out: {fault}")
    return None, remarks


def _named(folder: Path) -> Path | None:
    """The file that ``last_checkpoint`` names, if it exists: in ``folder``, or else at the path given there.

    ``CheckpointHook(out_dir=...)`` keeps checkpoints outside the work folder.
    """
    try:
        name = (folder / "last_checkpoint").read_text(encoding="utf-8", errors="replace").strip()
        paths = (folder / Path(name).name, Path(name)) if name else ()
        return next((path for path in paths if path.is_file()), None)
    except (OSError, ValueError):
        return None


def _candidates(folder: Path, named: Path | None) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    numbers = {path: int(match[1]) for path in files if (match := NUMBERED.fullmatch(path.name))}
    ordered = sorted(numbers, key=lambda path: (numbers[path], path.stat().st_mtime), reverse=True)
    if named is None:
        return ordered
    number, time = numbers.get(named, -1), named.stat().st_mtime
    newer = [path for path in ordered if numbers[path] > number and path.stat().st_mtime > time]
    return [*newer, named, *(path for path in ordered if path != named and path not in newer)]


def set_aside(folder: str | Path) -> list[Path]:
    """Move the checkpoints of an earlier training into a new sub-folder ``earlier_1``, or ``earlier_2``, ...

    The files beside a checkpoint that are made for it, such as ``iter_4.exits.json``, go with it, as do the results of
    the training.

    Returns:
        The checkpoints in their new place, the last one last.
    """
    folder = Path(folder)
    best = [path for path in sorted(folder.glob("best_*.pth")) if path.is_file()]
    checkpoints = [*best, *reversed(_candidates(folder, None))]
    if not checkpoints:
        return []
    aside = next(path for i in count(1) if not (path := folder / f"earlier_{i}").exists())
    aside.mkdir()
    stems = {path.stem for path in checkpoints}
    beside = [path for path in sorted(folder.glob("*.exits.json")) if path.name.removesuffix(".exits.json") in stems]
    for path in (*(folder / name for name in ("last_checkpoint", SAMPLES, *FILES)), *beside, *checkpoints):
        if path.exists():
            replace(path, aside / path.name)
    return [aside / path.name for path in checkpoints]


def why_unusable(path: str | Path) -> str | None:
    """Why training cannot resume from a checkpoint, or None; every byte of it is read."""
    try:
        read_resumable(path)
    except UserError as error:
        return str(error)
    return None


def read_resumable(path: str | Path) -> dict[str, Any]:
    """A checkpoint that training can resume from; its ``meta`` has ``epoch``, ``iter`` and, if known, ``seed``.

    Raises:
        UserError: the file is damaged, or lacks what is needed; the message does not name it.
    """
    try:
        content = read(path)
    except UserError as error:
        detail = str(error).removeprefix(f"checkpoint {path}: ")
        raise UserError(f"it is damaged, cut off or not a checkpoint ({detail})") from error
    except (OSError, ValueError) as error:  # ValueError: not a possible file name
        raise UserError(f"it cannot be read ({first_line(error)})") from error
    missing = [key for key in NEEDED if not isinstance(content, dict) or not isinstance(content.get(key), dict)]
    if missing:
        raise UserError(f"it has no {', '.join(missing)}")
    meta = content["meta"]
    if not all(type(meta.get(key)) is int and 0 <= meta[key] < 2**63 for key in ("epoch", "iter")):
        raise UserError("its meta does not say after which epoch and iteration it was saved")
    seed = meta.get("seed")
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**32):
        raise UserError(f"the seed in its meta is {shown(seed)}, allowed are integers from 0 to 2^32 - 1")
    return content


def find_whole(module: ModuleType) -> None:
    """Let mmengine's Runner resume from the newest whole checkpoint."""

    def find_latest_checkpoint(path: str) -> str | None:
        from mmengine.logging import print_log

        checkpoint, remarks = newest_checkpoint(path)
        for line in remarks:
            print_log(line, "current")
        return None if checkpoint is None else str(checkpoint)

    module.find_latest_checkpoint = find_latest_checkpoint  # type: ignore[attr-defined]
