"""Figures of the article on MSDNet (2018-09-24, on Huang et al., ICLR 2018; github.com/kalviny/MSDNet-PyTorch).

The article shows them without numbers, so there is nothing published beside the figures measured here. It names neither
depths nor places of classifiers of its baselines; those here are round ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mmms_plugin.reproduction.items import CIFAR100, IMAGENET, DataSet, Item, Measure, Row

SOURCE = "MSDNet"
REMARK = "The other figures of the article are diagrams of architectures."
SMOKE = (
    "--image-dir", "{pictures}", "--split", "train", "--image-size", "32x32", "--choose-on", "all", "--pictures", "2",
    "--batches", "2", "--rounds", "1",
)  # fmt: skip
RESNET, DENSENET = "cifar100/resnet62_exits", "cifar100/densenet100_exits"
LAST = {RESNET: (29, 64), DENSENET: (47, 342)}  # number of the last block, and its channels
INTERMEDIATE = Measure("intermediate top-1 %", "accuracy/exit1_top1")
FINAL = Measure("final top-1 %", "accuracy/top1")


def _exits(count: int) -> tuple[Measure, ...]:
    return tuple(Measure(f"exit {number}", f"accuracy/exit{number}_top1") for number in range(1, count + 1))


def _attached(name: str, config: str, blocks: tuple[tuple[int, int], ...]) -> Iterator[Row]:
    """A network with one more classifier, after each of some blocks, given with their channels; then without."""
    last, channels = LAST[config]
    for block, width in (*blocks, (None, 0)):
        indices, widths = ([last], [channels]) if block is None else ([block, last], [width, channels])
        place = "none" if block is None else f"after block {block + 1} of {last + 1}"
        options = {"model.backbone.out_indices": tuple(indices), "model.head.in_channels": widths}
        yield Row(f"{name}, {place}", (None, None), config, options)


def _curves(
    name: str, title: str, data: DataSet, epochs: int, exits: int, rows: tuple[Row, ...], remark: str,
    smoke_rows: int | None = None,
) -> Item:  # fmt: skip
    """Accuracy of every exit; both settings with intervals, the networks beside each other, in one figure."""
    folders = [f"{{out}}/{re.sub('[^a-zA-Z0-9]+', '_', row.name)}" for row in rows]
    after, last = [], len(rows) - 1
    for number, row in enumerate(rows):  # the last is drawn beside the others
        words = ["early-exit", f"{{{number}.config}}", f"{{{number}.work_dir}}", *data.words, "--out", folders[number]]
        words += ["--cfg-options", *row.cfg_options] if row.options else []
        after.append((*words, *(["--beside", *folders[:last]] if number == last else [])))
    return Item(name, SOURCE, title, "accuracy of every exit, anytime and within a budget", data, epochs, _exits(exits),
                rows, f"{remark} The figure is {folders[last].removeprefix('{out}/')}/beside.png.", smoke=SMOKE,
                after=tuple(after), smoke_rows=smoke_rows)  # fmt: skip


def _row(name: str, config: str, exits: int, **options: object) -> Row:
    return Row(name, (None,) * exits, config, {f"model.head.{key}": value for key, value in options.items()})


ITEMS = (
    Item(
        "msdnet-interference", SOURCE, "Figures of an intermediate classifier",
        "accuracy of an intermediate classifier, and what it costs the final one, by its place",
        CIFAR100, 300, (INTERMEDIATE, FINAL),
        (
            *_attached("ResNet-62", RESNET, ((2, 16), (6, 16), (11, 32), (16, 32), (21, 64), (26, 64))),
            *_attached("DenseNet-BC-100", DENSENET, ((4, 84), (11, 168), (18, 144), (26, 240), (34, 186), (43, 294))),
        ),
        "Where there is no intermediate classifier, both columns have the final one. The losses have equal weights, as "
        "in the article.",
        smoke_rows=2,
    ),
    _curves(
        "msdnet-cifar100", "Both settings, CIFAR-100", CIFAR100, 300, 7,
        (
            _row("ResNet-62, classifiers", RESNET, 7),
            _row("DenseNet-BC-100, classifiers", DENSENET, 7),
            _row("ResNets, sequence", "cifar100/resnet_sequence", 7),
            _row("ResNets, ensemble", "cifar100/resnet_sequence", 7, ensemble=True),
            _row("MSDNet, budgeted", "cifar100/msdnet_budgeted", 7),
            _row("MSDNet, anytime", "cifar100/msdnet_anytime", 7),
        ),
        "The paper's Figures 6 and 7 show curves only, one setting each: its MSDNets are the last two rows. Of the "
        "networks some have five or six exits.",
    ),
    _curves(
        "msdnet-imagenet", "Both settings, ImageNet", IMAGENET, 90, 5,
        tuple(_row(f"MSDNet, steps of {step}", f"imagenet/msdnet_step{step}", 5) for step in (4, 6, 7)),
        "The paper's Figure 5 shows curves only.", smoke_rows=1,
    ),
)  # fmt: skip
