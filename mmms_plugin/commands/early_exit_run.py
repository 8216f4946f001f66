"""``mmms early-exit``: thresholds for every budget, what they reach and what they save, for a trained network."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from mmms_plugin.config.checkpoint import check_fits, read_state_dict
from mmms_plugin.errors import UserError
from mmms_plugin.exits.benchmark import full_macs, measure_saving, print_savings, spent_macs
from mmms_plugin.exits.clock import clock_name, now
from mmms_plugin.exits.network import EarlyExit
from mmms_plugin.exits.plans import Plan, Plans, choose_plans, fingerprint
from mmms_plugin.exits.report import Point, draw
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.train.launch import LaunchOptions, drop_initial_weights, prepare_config, user_fault

TIMED_PLANS = 6
BUDGETS = (0.5, 0.75)  # of the full network, for the table of savings


@dataclass(frozen=True)
class Wanted:
    """What to report.

    Attributes:
        batches: sizes to measure. pictures, rounds: of the measurements.
        budgets: average million multiply-adds a picture, to measure; none means ``BUDGETS``.
        thresholds: a file of thresholds chosen before, or None to choose them.
    """

    batches: tuple[int, ...]
    pictures: int
    rounds: int
    budgets: tuple[float, ...] = ()
    thresholds: str | None = None


def early_exit(options: LaunchOptions, checkpoint: str, out: str, wanted: Wanted) -> Path:
    """Choose thresholds on half of the validation pictures, report on the other half; returns the thresholds' file.

    Thresholds that were chosen before are reported on all of them.

    Args:
        out: folder for the report.
    Raises: UserError if config, data, checkpoint and thresholds do not fit each other, or no plan is within a budget.
    """
    check_folder(out)
    config, _ = prepare_config(options, training=False)
    model = _load(config, checkpoint)
    network = EarlyExit.of(model)
    given = None if wanted.thresholds is None else Plans.load(wanted.thresholds, model)
    if given is not None:
        _timed(given, wanted.budgets, 0)  # refuses a budget before anything is computed
    scores, labels, sample = _outputs(model, config, network, wanted.pictures)
    size = (sample.shape[-2], sample.shape[-1])
    confidence, correct = scores.max(2), scores.argmax(2) == labels[:, None]
    if given is None:
        chosen = np.random.default_rng(0).permutation(len(labels)) < len(labels) / 2
        plans = _choose(model, network, size, confidence[chosen], correct[chosen])
        path = plans.save(Path(checkpoint).with_suffix(".exits.json"))
        confidence, correct = confidence[~chosen], correct[~chosen]
    else:
        plans, path = _of_size(given, size, str(wanted.thresholds)), Path(str(wanted.thresholds))
    timed = _timed(plans, wanted.budgets, full_macs(network, size))
    largest = max(wanted.batches)
    points = _points(network, plans, confidence, correct, sample, largest)
    savings = [
        measure_saving(network, sample, batch, plan, wanted.rounds) for batch in wanted.batches for plan in timed
    ]
    folder = make_folder(out)
    draw(points, folder / "accuracy_and_cost.png", largest)
    content = dict(points=[asdict(p) for p in points], savings=[dict(asdict(s), kept=s.kept) for s in savings])
    write_text(folder / "early_exit.json", json.dumps(content, indent=1) + "\n")
    console, threads = Console(), torch.get_num_threads()
    _tell(console, points, plans)
    print_savings(savings, f"early exit, {len(sample)} pictures, {threads} threads, {clock_name()}", console)
    console.print(f"thresholds: {path}; figure and figures: {folder}", soft_wrap=True, highlight=False)
    return path


def _choose(
    model: nn.Module, network: EarlyExit, size: tuple[int, int], confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
) -> Plans:  # fmt: skip
    count, exits = confidence.shape
    if count < exits:
        raise UserError(f"{count} pictures to choose thresholds on: at least {exits} are needed, one for each exit")
    return Plans(fingerprint(model), size, count, choose_plans(confidence, correct, network.costs(size)))


def _of_size(plans: Plans, size: tuple[int, int], path: str) -> Plans:
    if plans.size != size:
        raise UserError(
            f"thresholds {path}: for pictures of {plans.size[0]} x {plans.size[1]} px, these have {size[0]} x {size[1]}"
        )
    return plans


def _timed(plans: Plans, budgets: tuple[float, ...], full: int) -> list[Plan]:
    """The plans to measure; budgets in million multiply-adds."""
    if budgets:
        return [plans.within(1e6 * budget) for budget in budgets]
    return [min(plans.rows, key=lambda row: abs(row.macs - share * full)) for share in BUDGETS]


def _load(config: Any, checkpoint: str) -> nn.Module:
    from mmengine.registry import MODELS

    if not Path(checkpoint).is_file():
        raise UserError(f"checkpoint {checkpoint}: no such file")
    init_default_scope(config.default_scope)
    drop_initial_weights(config)
    model = user_fault("config", lambda: MODELS.build(config.model)).eval()
    check_fits(model, checkpoint, "test")
    model.load_state_dict(read_state_dict(checkpoint)[0])
    return model


@torch.inference_mode()
def _outputs(
    model: nn.Module, config: Any, network: EarlyExit, pictures: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], Tensor]:
    """Scores ``[pictures, exits, classes]`` and labels of the validation data, and the first pictures as tensors."""
    loader = Runner.build_dataloader(config.test_dataloader, seed=0)
    scores, labels = [], []
    sample: list[Tensor] = []
    preprocess: Any = model.data_preprocessor
    for batch in loader:
        data = preprocess(batch, False)
        inputs = data["inputs"]
        scores.append(torch.stack([logits.double().softmax(1) for logits in network(inputs)], 1).numpy())
        labels.append(np.array([int(one.gt_label[0]) for one in data["data_samples"]]))
        taken = sum(len(part) for part in sample)
        if taken < pictures:
            sample.append(inputs[: pictures - taken].clone())
    return np.concatenate(scores), np.concatenate(labels), torch.cat(sample)


def _points(
    network: EarlyExit, plans: Plans, confidence: NDArray[np.float64], correct: NDArray[np.bool_], sample: Tensor,
    batch: int,
) -> list[Point]:  # fmt: skip
    """Every exit, and every plan, on pictures that no threshold was chosen on."""
    costs, points, block = network.costs(plans.size), [], 0
    seconds = network.measure_exits(sample[:batch], 5, now)
    for index, cost in enumerate(costs):
        block += cost.block
        accuracy = 100 * float(correct[:, index].mean())
        name = f"exit {index + 1}"
        points.append(Point("anytime", name, block + cost.classifier, accuracy, seconds[index] / len(sample[:batch])))
    step = max(1, len(plans.rows) // TIMED_PLANS)
    for number, plan in enumerate(plans.rows):
        exits = leaving(confidence, plan.thresholds)
        accuracy = 100 * float(correct[np.arange(len(exits)), exits].mean())
        macs = spent_macs(network, plans.size, torch.from_numpy(exits), plan.thresholds)
        timed = measure_saving(network, sample, batch, plan, 3).seconds if number % step == 0 else None
        shares = np.bincount(exits, minlength=len(costs)) / len(exits)
        points.append(Point("budgeted", f"plan {number + 1}", macs, accuracy, timed, tuple(shares.tolist())))
    return points


def leaving(confidence: NDArray[np.float64], thresholds: tuple[float, ...]) -> NDArray[np.int64]:
    """The exit that each picture leaves at."""
    reached = confidence >= np.array(thresholds)
    reached[:, -1] = True
    return reached.argmax(1)


def _tell(console: Console, points: list[Point], plans: Plans) -> None:
    for point in points:
        if point.kind == "anytime":
            console.print(f"{point.name}: {point.macs / 1e6:.1f} MMAC, top-1 {point.accuracy:.2f} %", highlight=False)
    lowest, highest = plans.rows[0].macs / 1e6, plans.rows[-1].macs / 1e6
    text = f"{len(plans.rows)} plans from {lowest:.1f} to {highest:.1f} MMAC, chosen on {plans.pictures} pictures"
    console.print(text, highlight=False)
    last = max(point.macs for point in points if point.kind == "anytime")
    budgeted = [point for point in points if point.leaving is not None]
    for share in BUDGETS:
        point = min(budgeted, key=lambda one: abs(one.macs - share * last))
        shares = ", ".join(f"{100 * part:.0f}" for part in point.leaving or ())
        text = f"{point.macs / 1e6:.1f} MMAC, top-1 {point.accuracy:.2f} %, leave at each exit: {shares} %"
        console.print(f"budget {share:.0%}: {text}", highlight=False, soft_wrap=True)
