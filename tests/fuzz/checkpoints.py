"""Damaged and hostile checkpoints: a result, or one line and nothing written.

    python -m tests.fuzz.checkpoints --seed 1 --count 5000

They go to ``mmms convert``, to ``mmms publish``, and to the functions with which other commands read a checkpoint
(``_uses``). A case fails on a traceback, a signal, more than 10 s of processor time, a peak over 2 GB of memory, any
other exit status than 0 and 2, a second line on standard error, control characters on the terminal, files that are
half-written or left behind, an output that torch does not load by itself, and weights that differ from those of the
undamaged file.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from mmms_plugin.errors import UserError
from tests.fuzz import file_mutants
from tests.fuzz.watch import failures, run_command

MEMORY = 8 << 30  # of address space
# Where checksums reveal any change
CHECKED = ("bytes of zip", "directory of zip", "zip64 of zip", "bytes of run", "directory of run", "zip64 of run")
DLA = ["--source", "dla", "--arch", "dla46_c"]
SOURCES = (
    DLA, ["--source", "psconv", "--arch", "ps_resnet50"], ["--source", "torchvision", "--arch", "resnet18"], [],
    ["--source", "psconv"], ["--source", "timm"], ["--source", "msdnet"],
    ["--source", "elastic", "--arch", "resnext50"],
)  # fmt: skip
OPTIONS = (
    [],
    [],
    ["--part", "whole"],
    ["--part", "backbone"],
    ["--pattern", "1,2,1,4"],
    ["--drop-extra"],
    ["--verify"],
)


def check(case: int, seed: int) -> str | None:
    """Run one case in this process; returns what is wrong with the outcome, or None."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    _limit()
    rng = np.random.default_rng([seed, case])
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        (folder / "out").mkdir()
        kind, arguments = _case(rng, folder)
        if arguments[0] == "use":
            complaint = use(arguments[1], arguments[2])
        else:
            status, printed, errors = run_command(arguments)
            complaint = _complaint(status, printed, errors, folder / "out", kind in CHECKED)
        if complaint:
            kept = Path(tempfile.gettempdir(), f"checkpoint_fuzz_{seed}_{case}")
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            return f"{kind}: {complaint}\n  arguments {[a.replace(name, str(kept)) for a in arguments]}"
    return None


def _case(rng: np.random.Generator, folder: Path) -> tuple[str, list[str]]:
    """What was damaged, and the arguments of the command."""
    command = rng.choice(["convert", "publish", "reference", "use"], p=[0.5, 0.2, 0.05, 0.25])
    suffix = str(rng.choice([".pth", ".safetensors"], p=[0.6, 0.4]))
    if command == "reference":
        source = file_mutants.write(folder / "in.pth", file_mutants.bases()["zip"])
        reference = file_mutants.write(folder / "reference.npz", file_mutants.make_reference(rng))
        return "reference", [
            "convert",
            str(source),
            str(folder / f"out/out{suffix}"),
            *DLA,
            "--reference",
            str(reference),
        ]
    kind, data = file_mutants.make(rng)
    safe = "safetensors" in kind and rng.random() < 0.7
    source = file_mutants.write(folder / ("in.safetensors" if safe else "in.pth"), data)
    if command == "use":
        return kind, ["use", str(rng.choice(sorted(_uses()))), str(source)]
    if command == "publish":
        frozen = ["--freeze-shapes"] if rng.random() < 0.1 else []
        return kind, ["publish", str(source), str(folder / f"out/out{suffix}"), *frozen]
    plain = kind.endswith((" zip", " old", " safetensors")) and "small" not in kind
    chosen = DLA if plain and rng.random() < 0.7 else SOURCES[int(rng.integers(len(SOURCES)))]
    options = OPTIONS[int(rng.integers(len(OPTIONS)))]
    return kind, ["convert", str(source), str(folder / f"out/out{suffix}"), *chosen, *options]


def _uses() -> dict[str, Callable[[str], Any]]:
    """What commands do with a checkpoint before they use its weights, by name."""
    from mmms_plugin.backbones import DLA
    from mmms_plugin.config import checkpoint
    from mmms_plugin.config.function import Function
    from mmms_plugin.config.start import start_for
    from mmms_plugin.weights import load_model
    from mmms_plugin.weights.files import read_checkpoint
    from mmms_plugin.weights.host_loading import load_from_local
    from mmms_plugin.weights.newest import why_unusable
    from mmms_plugin.weights.trusted import class_colours

    model, parts = torch.nn.ModuleDict(), file_mutants.sound_meta()["trained"]
    own, classes = Function(parts | {"bbox_head": {"scales": [1]}}), ("b", "a")

    def pretrained(path: str) -> None:
        network = torch.nn.ModuleDict({"backbone": DLA(arch="46_c"), "head": torch.nn.Linear(2, 2)})
        begun = start_for(network, own, read_checkpoint(path), path, classes)
        network.load_state_dict(begun.state, strict=False)

    def components(path: str) -> None:
        checkpoint.use_components({"a": {"type": "RoIAlign"}}, read_checkpoint(path))

    return dict(
        load_model=load_model,
        test=lambda path: checkpoint.check_function(model, own, read_checkpoint(path), True, classes),
        fits=lambda path: checkpoint.check_fits(model, read_checkpoint(path), "start from", classes),
        resume=lambda path: checkpoint.check_resumed(model, own, read_checkpoint(path), classes),
        start=lambda path: checkpoint.start_remark(model, own, path, read_checkpoint(path), whole=True),
        pretrained=pretrained,
        colours=lambda path: class_colours(read_checkpoint(path).meta),
        newest=why_unusable, hosts=load_from_local, components=components,
    )  # fmt: skip


def use(name: str, path: str) -> str | None:
    """What is wrong with what a function makes of a file: anything but a result or a UserError."""
    try:
        _uses()[name](path)
    except UserError:
        return None
    except Exception:
        return f"{name}: {traceback.format_exc()}"
    return None


def _complaint(status: int | str, printed: str, errors: str, out: Path, same_weights: bool) -> str | None:
    if status not in (0, 2):
        return str(status)
    strange = sorted({char for char in printed + errors if not char.isprintable() and char != "\n"})
    if strange:
        return f"control characters on the terminal: {strange}"
    files = list(out.iterdir())
    if status == 2:
        lines = errors.splitlines()
        if len(lines) != 1 or not lines[0].startswith("mmms ") or ": error: " not in lines[0] or printed:
            return f"not one line: {printed[:200]!r} {errors[:1000]!r}"
        return f"left behind: {files}" if files else None
    if errors:
        return f"lines on standard error: {errors[:1000]!r}"
    if len(files) != 1 or files[0].name.startswith("."):
        return f"files: {files}"
    return _unloadable(files[0], same_weights)


def _unloadable(path: Path, same_weights: bool) -> str | None:
    """Why an output cannot be used with torch and safetensors alone, or is silently damaged."""
    from safetensors.torch import load_file

    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, weights_only=True)["state_dict"]
    except Exception as error:
        return f"an output that does not load: {error}"
    finally:
        torch.serialization.add_safe_globals(allowed)
    return "silent damage" if same_weights and not _known(state) else None


def _known(state: dict[str, torch.Tensor]) -> bool:
    """Whether every tensor equals one of the undamaged file."""
    known = _digests()
    return all(_digest(value) in known for key, value in state.items() if not key.endswith("num_batches_tracked"))


def _digest(value: torch.Tensor) -> str:
    return hashlib.sha1(value.contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else b"").hexdigest()


def _digests() -> set[str]:
    tensors = [*file_mutants.weights().values(), *file_mutants.small_weights().values()]
    return {_digest(value) for value in tensors}


def _limit() -> None:
    torch.set_num_threads(1)  # threads do not survive the fork
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(seed: int, count: int) -> Iterator[tuple[int, str]]:
    """Failures among ``count`` cases, as they occur."""
    import mmms_plugin.registry
    import mmms_plugin.weights.convert  # noqa: F401  (imported once, before the processes fork)
    from mmms_plugin.config import checkpoint  # noqa: F401
    from mmms_plugin.weights.files import Checkpoint
    from mmms_plugin.weights.recognise import recognise

    recognise(Checkpoint(Path(), file_mutants.weights()))  # what is built once for all files
    file_mutants.bases()
    with mock.patch("mmms_plugin.files.flush"):  # no need to wait for the disk
        yield from failures(partial(check, seed=seed), range(count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--only", type=int, metavar="CASE", help="run this case alone, in this process")
    args = parser.parse_args()
    if args.only is not None:
        print(check(args.only, args.seed))
        return 0
    failed = 0
    for case, complaint in run(args.seed, args.count):
        failed += 1
        print(f"case {case}: {complaint}", flush=True)
    print(f"{args.count} cases of seed {args.seed}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
