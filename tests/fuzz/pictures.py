"""Damaged pictures for ``mmms check-data --decode`` and for the reading of ``mmms predict``.

    python -m tests.fuzz.pictures --seed 1 --count 2000

A case is a data set of several pictures. It fails on a traceback, a signal, more than 10 s of processor time, more than
2 GB of memory, a line on standard error, a fault that is not one line, and a picture that is called sound but that
OpenCV, with which training reads it, cannot decode or decodes in another size.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmms_plugin.coco.formats import picture_size
from mmms_plugin.data.pictures import look_at, quiet_libraries
from mmms_plugin.data.seg_set import read_mask
from mmms_plugin.errors import UserError
from mmms_plugin.processes import RSS_UNIT
from mmms_plugin.report.page import open_picture
from tests.fuzz import picture_mutants
from tests.fuzz.watch import failures, run_command, standard_error

EACH = 8  # pictures of a case
MEMORY = 2 << 30  # resident
ADDRESSES = 6 << 30  # more ends in an error


def check(case: int, seed: int, large: float) -> str | None:
    """Run one case in this process; returns what is wrong with the outcome, or None."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    cv2.setNumThreads(1)  # threads do not survive the fork
    rng = np.random.default_rng([seed, case])
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        made = [picture_mutants.make(rng, large) for _ in range(EACH)]
        paths = []
        for i, (_, suffix, data) in enumerate(made):
            paths.append(folder / f"p{i}{suffix}")
            paths[-1].write_bytes(data)
        complaint = _check_data(folder, paths) or next(filter(None, map(_read, paths)), None) or _memory()
        if complaint:
            kept = Path(tempfile.gettempdir(), f"picture_fuzz_{seed}_{case}")
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            return f"{complaint}\n  " + "\n  ".join(
                f"{kept / p.name}: {m[0]}" for p, m in zip(paths, made, strict=True)
            )
    return None


def _check_data(folder: Path, paths: list[Path]) -> str | None:
    width, height = picture_mutants.SIDES
    content = {
        "images": [{"id": i, "file_name": p.name, "width": width, "height": height} for i, p in enumerate(paths)],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            for i in range(len(paths))
        ],
    }
    (folder / "train.json").write_text(json.dumps(content), encoding="utf-8")
    report = folder / "report.json"
    arguments = ["check-data", "--ann", str(folder / "train.json"), "--img-dir", str(folder), "--decode", "--boxes"]
    status, _, errors = run_command([*arguments, "--json", str(report)])
    if status not in (0, 2):
        return str(status)
    if len(errors.splitlines()) != 1:
        return f"not one line: {errors[:1000]!r}"
    findings = json.loads(report.read_text(encoding="utf-8"))["findings"]
    texts = [text for finding in findings for text in finding["examples"]]
    return next((f"not a line: {text!r}" for text in texts if not text.isprintable() or "memory" in text), None)


def _read(path: Path) -> str | None:
    """What is wrong with how a picture is read by the other ways."""
    with standard_error() as errors, quiet_libraries():
        seen, header, mask = look_at(path, decode=True), look_at(path), read_mask(path)
        open_picture(path)
        try:
            picture_size(path, "--images")
        except UserError as error:
            if not str(error).isprintable():
                return f"{path.name}: not a line: {error}"
        decoded = None if seen.problem else cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if errors.text:
        return f"{path.name}: on standard error: {errors.text[:500]!r}"
    for text in (seen.reason, header.reason, mask.detail):
        if not text.isprintable() or len(text) > 200 or "memory" in text:
            return f"{path.name}: {text!r}"
    if seen.problem:
        return None
    if decoded is None or decoded.shape[1::-1] != seen.size or header.size != seen.size:
        return f"{path.name}: {seen.size}, decoded {None if decoded is None else decoded.shape}, header {header.size}"
    return None


def _memory() -> str | None:
    """A complaint about the peak since the last case."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    if Path("/proc/self/status").exists():
        (line,) = [x for x in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if "VmHWM" in x]
        peak = int(line.split()[1]) << 10
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return f"{peak >> 20} MiB of memory" if peak > MEMORY else None


def run(seed: int, count: int, large: float = 0.01) -> Iterator[tuple[int, str]]:
    """Failures among ``count`` pictures, as they occur; a share of ``large`` are as large as is still read."""
    import mmms_plugin.data.check  # noqa: F401  (imported once, before the processes fork)

    picture_mutants.sound()
    for kind in picture_mutants.LARGE if large else ():
        picture_mutants.flat(kind)
    yield from failures(partial(check, seed=seed, large=large), range(-(-count // EACH)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000, help="number of pictures")
    parser.add_argument("--only", type=int, metavar="CASE", help="run this case alone, in this process")
    args = parser.parse_args()
    if args.only is not None:
        print(check(args.only, args.seed, 0.01))
        return 0
    failed = 0
    for case, complaint in run(args.seed, args.count):
        failed += 1
        print(f"case {case}: {complaint}", flush=True)
    print(f"{args.count} pictures of seed {args.seed}: {failed} cases failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
