"""Choose thresholds of a network with several exits for any budget.

Also measures the time that early exits save.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmms_plugin.errors import UserError, one_line, shown
from mmms_plugin.files import check_folder, checkpoint_file, existing_file, exits_file, make_folder, write_text
from mmms_plugin.options import REQUIRED, option, positional
from mmms_plugin.train.options import DATA, OUTPUT, SPLITS, EvaluateOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from torch import Tensor, nn

    from mmms_plugin.exits.network import EarlyExit
    from mmms_plugin.exits.plans import Plan, Plans, Promise
    from mmms_plugin.exits.savings import Point

BUDGETS = (0.5, 0.75)  # of the full network, for the table of savings
CONFIDENCE, MOST_CONFIDENCE = 0.95, 0.9999  # of --risk
THRESHOLDS, MEASUREMENTS = "thresholds", "measurements"  # headings of --help


def _check_source(path: str) -> None:
    if not Path(path).is_dir():
        checkpoint_file(path)


@dataclass(kw_only=True)
class Options(EvaluateOptions):
    LEFT_OUT = (
        "coco_dir",
        "voc_dir",
        "train_ann",
        "val_ann",
        "img_dir",
        "binary_masks",
        "device",
    )  # not of one-label classifiers, which are timed on the CPU

    checkpoint: str = positional(
        exists=_check_source,
        help="checkpoint file, or a training's work folder, whose newest counts; the thresholds go beside it, "
        "NAME.exits.json for NAME.pth",
    )
    split: str = option(
        choices=SPLITS,
        default="val",
        group=DATA,
        help="pictures to use",
    )
    choose_on: str = option(
        choices=("half", "all"),
        default="half",
        group=THRESHOLDS,
        help="choose thresholds on half of the pictures and report on the other half, or both on all of them (default: "
        "half)",
    )
    thresholds: str | None = option(
        metavar="FILE",
        exists=partial(existing_file, argument="--thresholds"),
        group=THRESHOLDS,
        help="thresholds chosen earlier, to report on all pictures (default: choose them)",
    )
    budget: tuple[float, ...] | None = option(
        above=0, metavar="MMAC", group=THRESHOLDS,
        help="budgets to time, average million multiply-adds per picture (default: half and three quarters of the full "
        "network's)",
    )  # fmt: skip
    risk: tuple[float, ...] = option(
        default=(), above=0, most=1, metavar="SHARE", group=THRESHOLDS,
        help="also find the cheapest thresholds that lower accuracy by at most this share of all pictures, such as "
        "0.02, with the --confidence; several are promised one by one",
    )  # fmt: skip
    confidence: float | None = option(
        above=0, most=MOST_CONFIDENCE, metavar="P", group=THRESHOLDS,
        help="probability that the thresholds of --risk keep to it, over the pictures that they are tested on "
        f"(default: {CONFIDENCE})",
    )  # fmt: skip
    batches: tuple[int, ...] = option(
        default=(1, 8, 32, 64), least=1, metavar="N", group=MEASUREMENTS, help="batch sizes to time"
    )
    pictures: int = option(default=64, least=1, metavar="N", group=MEASUREMENTS, help="number of pictures to time")
    rounds: int = option(
        default=5, least=1, metavar="N", group=MEASUREMENTS, help="measurements of each; the median counts"
    )
    beside: tuple[str, ...] = option(
        default=(), metavar="DIR", group=OUTPUT,
        help="reports of other networks, folders that this command wrote, to draw beside this one (beside.png)",
    )  # fmt: skip
    out: str = option(default=REQUIRED, metavar="DIR", group=OUTPUT, help="folder for the plot and the numbers")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.risk and self.thresholds is not None:
            raise UserError("--risk: thresholds are tested when they are chosen; leave --thresholds out")
        if self.confidence is not None and not self.risk:
            raise UserError("--confidence: needs --risk, for which it is")
        names = [Path(folder).resolve().name for folder in (self.out, *self.beside)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(
                f"--beside: two reports are called {shown(twice)}, as the figure names them by their folders"
            )


def run(options: Options) -> None:
    """Choose thresholds on half or all of the pictures and report on the other half or all, or report given thresholds.

    Raises: UserError if config, data, checkpoint and thresholds do not fit each other, or no plan is within a budget.
    """
    import numpy as np
    import torch
    from rich.console import Console

    from mmms_plugin.exits.network import EarlyExit
    from mmms_plugin.exits.plans import Plans
    from mmms_plugin.exits.risk import certify
    from mmms_plugin.exits.savings import (
        REPORT,
        Report,
        draw,
        draw_beside,
        full_macs,
        measure_points,
        measure_saving,
        savings_table,
    )
    from mmms_plugin.report.terminal import print_table, say
    from mmms_plugin.scale.clock import clock_name
    from mmms_plugin.train.launch import prepare_config

    check_folder(options.out)
    others = {Path(folder).resolve().name: Report.load(folder).points for folder in options.beside}
    options.checkpoint = _checkpoint(options.checkpoint)
    if options.thresholds is not None and options.choose_on != "half":
        raise UserError(f"--choose-on {options.choose_on}: --thresholds gives the thresholds; leave one of them out")
    config, _ = prepare_config(options, training=False)
    model = _load(config, options)
    network = EarlyExit.of(model, fold=options.optimize)
    given = None if options.thresholds is None else Plans.load(options.thresholds, model)
    if given is not None:
        _timed(given, options.budget, 0)  # refuse a budget before anything is computed
    scores, labels, sample = _outputs(model, config, network, options.pictures)
    size = (sample.shape[-2], sample.shape[-1])
    confidence, correct = scores.max(2), scores.argmax(2) == labels[:, None]
    if given is None:
        half = np.random.default_rng(0).permutation(len(labels)) < len(labels) / 2
        chosen, reported = (half, ~half) if options.choose_on == "half" else (slice(None), slice(None))
        plans = _choose(model, network, size, confidence[chosen], correct[chosen])
        promises = [
            certify(confidence[chosen], correct[chosen], network.costs(size), risk, options.confidence or CONFIDENCE)
            for risk in dict.fromkeys(options.risk)
        ]
        plans = replace(plans, promises=tuple(promises))
        path = exits_file(options.checkpoint)
        gone = _lost_promises(path, options.risk)
        plans.save(path)
        confidence, correct = confidence[reported], correct[reported]
    else:
        plans, path, gone = given, Path(str(options.thresholds)), ""
        plans.check(size, network.costs(size), path)
    full = full_macs(network, size)
    timed = [*_timed(plans, options.budget, full), *(promise.plan for promise in plans.promises)]
    largest = max(options.batches)
    points = measure_points(network, plans, confidence, correct, sample, largest)
    savings = [
        measure_saving(network, sample, batch, plan, options.rounds) for batch in options.batches for plan in timed
    ]
    folder = make_folder(options.out)
    draw(points, folder / "accuracy_and_cost.png", largest)
    content: dict[str, Any] = dict(
        points=[asdict(point) for point in points],
        savings=[dict(asdict(saving), kept=saving.kept) for saving in savings],
    )
    results = [_result(promise, network, size, confidence, correct) for promise in plans.promises]
    if results:
        content["promises"] = results
    if others:
        draw_beside({folder.resolve().name: points, **others}, folder)
    write_text(folder / REPORT, json.dumps(content, indent=1) + "\n")
    console, threads = Console(), torch.get_num_threads()
    _print(console, points, plans)
    for result in results:
        say(_line(result, full), console)
    for budget in options.budget or ():
        if 1e6 * budget > full:
            say(
                f"--budget {budget:g}: the whole network takes {full / 1e6:.1f} MMAC; timed is its most accurate plan",
                console,
            )
    title = f"early exit, {len(sample)} pictures, threads: {threads}, {clock_name()}"
    print_table(savings_table(savings, title), console)
    if gone:
        say(f"{path} held thresholds for --risk {gone} until now; these replace them", console)
    if given is None and options.split == "train" and plans.promises:
        say(
            "--split train: a promise holds for pictures like these; the network knows the ones it was trained on",
            console,
        )
    if given is None and options.choose_on == "all":
        say("the thresholds were chosen on these pictures; for others, give them with --thresholds", console)
    if given is not None:
        say(
            f"the thresholds were chosen on {given.pictures} pictures: if some of them are among these, accuracy is "
            "lower on new ones",
            console,
        )
    say(f"thresholds: {path}; plot and numbers: {folder}", console)


def _checkpoint(source: str) -> str:
    """The file itself, or the newest checkpoint of a work folder."""
    from mmms_plugin.weights.newest import newest_checkpoint

    if not Path(source).is_dir():
        return source
    newest, _ = newest_checkpoint(source)
    if newest is None:
        raise UserError(f"checkpoint {source}: no usable checkpoint in this folder")
    return str(newest)


def _lost_promises(path: Path, risks: Sequence[float]) -> str:
    """What the file that is to be replaced promises, but for ``risks``; empty without a file that can be used."""
    from mmms_plugin.exits.plans import Plans

    try:
        promises = Plans.load(path).promises if path.exists() else ()
    except UserError:
        return ""
    lost = (promise for promise in promises if promise.risk not in risks)
    return ", ".join(f"{promise.risk:g} (confidence {promise.confidence:g})" for promise in lost)


def _choose(
    model: nn.Module, network: EarlyExit, size: tuple[int, int], confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
) -> Plans:  # fmt: skip
    from mmms_plugin.exits.plans import Plans, choose_plans, fingerprint

    count, exits = confidence.shape
    if count < exits:
        raise UserError(f"{count} pictures to choose thresholds on: at least {exits} are needed, one for each exit")
    return Plans(fingerprint(model), size, count, choose_plans(confidence, correct, network.costs(size)))


def _result(
    promise: Promise, network: EarlyExit, size: tuple[int, int], confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
) -> dict[str, Any]:  # fmt: skip
    """A promise, and what its thresholds do on the pictures of the report."""
    import torch

    from mmms_plugin.exits.plans import leaving
    from mmms_plugin.exits.savings import spent_macs

    exits = leaving(confidence, promise.plan.thresholds)
    answers = correct[range(len(exits)), exits]
    macs = spent_macs(network, size, torch.from_numpy(exits), promise.plan.thresholds)
    loss = float(correct[:, -1].mean() - answers.mean())
    return dict(asdict(promise), loss=promise.loss, macs=macs, loss_here=loss, pictures_here=len(exits))


def _line(result: dict[str, Any], full: int) -> str:
    """What is promised, and what came of it."""
    start = f"--risk {result['risk']:g}: "
    if result["plan"]["macs"] >= full:
        tested = f"{result['pictures']} pictures"
        promise = f"to promise any thresholds with confidence {result['confidence']:g}"
        return f"{start}{tested} are not enough {promise}; the whole network must answer"
    promise = f"top-1 at most {100 * result['risk']:g} below its, with confidence {result['confidence']:g}"
    cost = f"{result['macs'] / 1e6:.1f} MMAC, {result['macs'] / full:.0%} of the whole network's"
    tested = f"{0 - 100 * result['loss']:+.2f} on the {result['pictures']} pictures of the test"
    here = f"{0 - 100 * result['loss_here']:+.2f} on the {result['pictures_here']} of this report"
    return f"{start}{cost}; promised: {promise}; measured: {tested}, {here}"


def _timed(plans: Plans, budgets: Sequence[float] | None, full: int) -> list[Plan]:
    """The plans to measure; budgets in million multiply-adds."""
    if budgets:
        return [plans.within(1e6 * budget) for budget in budgets]
    return [min(plans.rows, key=lambda row: abs(row.macs - share * full)) for share in BUDGETS]


def _load(config: Any, options: Options) -> nn.Module:
    from mmengine.registry import MODELS

    from mmms_plugin.config.check import user_fault
    from mmms_plugin.config.checkpoint import check_fits, check_function, state_of
    from mmms_plugin.config.edit import data_classes
    from mmms_plugin.config.function import Function
    from mmms_plugin.registry import use_scope
    from mmms_plugin.train.launch import drop_initial_weights
    from mmms_plugin.weights.files import read_checkpoint

    checkpoint, own = read_checkpoint(options.checkpoint), Function.of(config)
    use_scope(config.default_scope)
    drop_initial_weights(config)
    model = user_fault("config", lambda: MODELS.build(config.model)).eval()
    classes = data_classes(config, "test")
    remarks = (
        check_fits(model, checkpoint, "test", classes),
        check_function(model, own, checkpoint, options.force, classes),
    )
    for remark in filter(None, remarks):
        print(one_line(remark), file=sys.stderr)
    model.load_state_dict(state_of(checkpoint))
    return model


def _outputs(
    model: nn.Module, config: Any, network: EarlyExit, pictures: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], Tensor]:
    """Scores ``[pictures, exits, classes]`` and labels of the validation data, and the first pictures as tensors."""
    import numpy as np
    import torch
    from mmengine.runner import Runner

    loader = Runner.build_dataloader(config.test_dataloader, seed=0)
    scores, labels = [], []
    sample: list[Tensor] = []
    preprocess: Any = model.data_preprocessor
    with torch.inference_mode():
        for batch in loader:
            data = preprocess(batch, False)
            inputs = data["inputs"]
            scores.append(torch.stack([logits.double().softmax(1) for logits in network(inputs)], 1).numpy())
            labels.append(np.array([int(picture.gt_label[0]) for picture in data["data_samples"]]))
            taken = sum(len(part) for part in sample)
            if taken < pictures:
                sample.append(inputs[: pictures - taken].clone())
        return np.concatenate(scores), np.concatenate(labels), torch.cat(sample)


def _print(console: Console, points: list[Point], plans: Plans) -> None:
    from mmms_plugin.report.terminal import say

    for point in points:
        if point.kind == "anytime":
            say(f"{point.name}: {point.macs / 1e6:.1f} MMAC, top-1 {point.accuracy:.2f} %", console)
    lowest, highest = plans.rows[0].macs / 1e6, plans.rows[-1].macs / 1e6
    text = f"{len(plans.rows)} plans from {lowest:.1f} to {highest:.1f} MMAC, chosen on {plans.pictures} pictures"
    say(text, console)
    last = max(point.macs for point in points if point.kind == "anytime")
    budgeted = [point for point in points if point.leaving is not None]
    for share in BUDGETS:
        point = min(budgeted, key=lambda point: abs(point.macs - share * last))
        shares = ", ".join(f"{100 * part:.0f}" for part in point.leaving or ())
        text = f"{point.macs / last:.0%} on these pictures, {point.macs / 1e6:.1f} MMAC, top-1 {point.accuracy:.2f} %"
        text = f"plan nearest to {share:.0%} of the whole network's multiply-adds: {text}"
        say(f"{text}, leave at each exit: {shares} %", console)
