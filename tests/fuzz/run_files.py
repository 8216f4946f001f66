"""Damaged files of earlier runs: thresholds of ``mmms early-exit``, records and logs of ``mmms compare-seeds``.

    python -m tests.fuzz.run_files --seed 1 --count 2000

A case fails on a traceback, a signal, more than 10 s of processor time, a second line beside the error, control
characters on the terminal, a training although a record is damaged, and figures in a report that are not finite.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

from mmms_plugin.errors import UserError
from mmms_plugin.exits import Plans, certify, choose_plans
from mmms_plugin.exits.plans import fingerprint, leaving
from mmms_plugin.scale.flops import ExitCost
from tests.fuzz.json_mutants import mutate
from tests.fuzz.watch import failures, run_command

EXITS, SIZE = 3, (32, 32)
COSTS = [ExitCost(1000, 10), ExitCost(2000, 20), ExitCost(3000, 30)]
CONFIGS, SEEDS, METRICS = ("first.py", "second.py"), 2, ("accuracy/top1", "coco/bbox_mAP")
ABSURD = (-1, -1e-9, 1.5, 1e300, 1e17, 10**19, 0, 0.1, float("nan"), float("inf"), "0.5", None, True, [], [0.5])


@lru_cache(maxsize=1)
def network() -> torch.nn.Module:
    """What thresholds are checked against: weights, and a number of exits."""
    model = torch.nn.Module()
    model.backbone, model.head = torch.nn.Linear(2, 2), torch.nn.Module()
    model.head.exits = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(EXITS))
    return model


@lru_cache(maxsize=1)
def thresholds() -> dict[str, Any]:
    """The content of a sound file."""
    rng = np.random.default_rng(0)
    confidence = rng.random((12, EXITS))
    correct = rng.random((12, EXITS)) < 0.5
    rows = choose_plans(confidence, correct, COSTS, steps=5)
    promises = (certify(confidence, correct, COSTS, 0.9, 0.8),)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        path = Plans(fingerprint(network()), SIZE, 12, rows, promises).save(Path(folder, "a.json"))
        return json.loads(path.read_text(encoding="utf-8"))


def check_thresholds(case: int, seed: int) -> str | None:
    """Read one file as ``mmms early-exit`` does; returns what is wrong with the outcome, or None."""
    rng = np.random.default_rng([seed, case, 1])
    content = json.loads(json.dumps(thresholds()))
    if rng.random() < 0.5:  # of the right type, but another figure
        rows = [*content["rows"], *content["promises"], *(promise["plan"] for promise in content["promises"])]
        row = rows[int(rng.integers(len(rows)))]
        key = str(rng.choice(list(row)))
        value = ABSURD[int(rng.integers(len(ABSURD)))]
        if isinstance(row[key], list) and rng.random() < 0.7:
            row[key][int(rng.integers(len(row[key])))] = value
        else:
            row[key] = value
    else:
        content = mutate(content, rng)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        path = Path(folder, "a.exits.json")
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        try:
            plans = Plans.load(path, network())
            plans.check(SIZE, COSTS, path)
        except UserError as error:
            text = str(error)
            return None if text.startswith(f"thresholds {path}: ") and "\n" not in text else f"not one line: {text!r}"
    confidence = np.random.default_rng(0).random((7, EXITS))
    for row in (*plans.rows, *(promise.plan for promise in plans.promises)):
        shares, figures = np.bincount(leaving(confidence, row.thresholds)), (row.macs, row.accuracy, *row.shares)
        if shares.sum() != 7 or not all(0 <= figure < 1e5 for figure in figures):
            return f"accepted: {row}"
    return None if plans.within(1e9) in plans.rows else "no plan within a large budget"


def check_seeds(case: int, seed: int) -> str | None:
    """Run ``mmms compare-seeds`` on records of which one is damaged or missing; what is wrong with the outcome."""
    rng = np.random.default_rng([seed, case, 2])
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        for place, config in enumerate(CONFIGS):
            for number in range(SEEDS):
                write_record(folder, config, number, 50.0 + place + number)
        file = folder / CONFIGS[int(rng.integers(2))].removesuffix(".py") / f"seed_{rng.integers(SEEDS)}.json"
        log, trained = None, []
        if rng.random() < 0.25:
            file.unlink()
            log = damaged_log(rng)
        else:
            damage_record(file, rng)
        with no_training(trained, log):
            status, printed, errors = run_command(
                ["compare-seeds", *CONFIGS, "--seeds", str(SEEDS), "--out", str(folder), *metrics_option(rng)]
            )
        return _complaint(status, printed, errors, folder, log is not None, trained)


def write_record(folder: Path, config: str, seed: int, value: float) -> None:
    (folder / config.removesuffix(".py") / f"seed_{seed}").mkdir(parents=True)
    record = dict(
        config=config, seed=seed, options=[], metrics=dict.fromkeys(METRICS, value), seconds=0.5, peak_memory=10**9
    )
    path = folder / config.removesuffix(".py") / f"seed_{seed}.json"
    path.write_text(json.dumps(record), encoding="utf-8")


def damage_record(file: Path, rng: np.random.Generator) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    if rng.random() < 0.4:
        place = content if rng.random() < 0.5 else content["metrics"]
        place[str(rng.choice(list(place)))] = ABSURD[int(rng.integers(len(ABSURD)))]
        file.write_text(json.dumps(content), encoding="utf-8")
    elif rng.random() < 0.1:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(mutate(content, rng))


def damaged_log(rng: np.random.Generator) -> bytes:
    """The scalars that a training logs, with one to three things wrong."""
    lines: list[Any] = [{"loss": 2.0, "time": 0.5, "step": i} for i in range(3)]
    lines.append({**dict.fromkeys(METRICS, 50.0), "step": 3})
    place = int(rng.integers(len(lines)))
    encoded = [json.dumps(line).encode() for line in lines]
    encoded[place] = mutate(lines[place], rng)
    data = b"\n".join(encoded)
    return data[: int(rng.integers(len(data)))] if rng.random() < 0.3 else data


def metrics_option(rng: np.random.Generator) -> list[str]:
    return ["--metrics", str(rng.choice([*METRICS, "x", "\x1b[31m"]))] if rng.random() < 0.3 else []


@contextmanager
def no_training(trained: list[str], log: bytes | None) -> Iterator[None]:
    """Let a training do nothing but log; configs are not read."""
    from mmms_plugin.commands import compare_seeds

    def start(job: compare_seeds._Job, _: compare_seeds.Options) -> None:
        trained.append(job.config)
        (job.work_dir / "1/vis_data").mkdir(parents=True)
        (job.work_dir / "1/vis_data/scalars.json").write_bytes(log or b"")
        job.peak = 10**9

    cost = compare_seeds.TrainedCost(1000, 2_000_000, 2**20)
    with (
        mock.patch.object(compare_seeds._Job, "start", start),
        mock.patch.object(compare_seeds._Job, "ended", return_value=True),
        mock.patch.object(compare_seeds, "_check"),
        mock.patch.object(compare_seeds, "trained_cost", return_value=cost),
    ):
        yield


def _complaint(
    status: int | str, printed: str, errors: str, folder: Path, missing: bool, trained: Sequence[str]
) -> str | None:
    lines = [line for line in errors.splitlines() if not (missing and "not whole" in line)]
    if status not in ((0, 1, 2) if missing else (0, 2)):
        return str(status)
    strange = sorted({char for char in printed + errors if not char.isprintable() and char != "\n"})
    if strange:
        return f"control characters on the terminal: {strange}"
    if trained and not missing:
        return "trained although no record is missing"
    if status:
        one = len(lines) == 1 and lines[0].startswith("mmms compare-seeds: error: ")
        return None if one else f"not one line: {printed[:200]!r} {errors[:1000]!r}"
    if lines:
        return f"strange lines: {errors[:1000]!r}"
    content = json.loads((folder / "seeds.json").read_text(encoding="utf-8"), parse_constant=lambda text: 1 / 0)
    figures = [value for summary in content.values() for value in summary["metrics"].values()]
    spreads = [SimpleNamespace(**figure) for figure in figures]
    if any(s.mean is not None and not math.isclose(s.mean, np.mean(s.values), rel_tol=1e-9) for s in spreads):
        return f"wrong means: {content}"
    return None if (folder / "seeds.md").is_file() else "no table"


CHECKS: dict[str, Callable[[int, int], str | None]] = {"thresholds": check_thresholds, "seeds": check_seeds}


def run(kind: str, seed: int, count: int) -> list[tuple[int, str]]:
    """Failures among ``count`` cases, and what is wrong with each."""
    network()
    thresholds()
    return list(failures(partial(CHECKS[kind], seed=seed), range(count)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000, help="cases of each kind")
    parser.add_argument("--only", type=int, metavar="CASE", help="run this case alone, in this process")
    args = parser.parse_args()
    if args.only is not None:
        print({kind: check(args.only, args.seed) for kind, check in CHECKS.items()})
        return 0
    failed = 0
    for kind in CHECKS:
        cases = run(kind, args.seed, args.count)
        for case, complaint in cases:
            print(f"{kind}, case {case}: {complaint}")
        print(f"{args.count} {kind} of seed {args.seed}: {len(cases)} failed")
        failed += len(cases)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
