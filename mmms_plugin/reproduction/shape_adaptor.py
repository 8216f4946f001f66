"""Tables and figures of Shape Adaptor (Liu et al., ECCV 2020; shikun.io/projects/shape-adaptor).

The published figures are those of the authors' page; settings that it leaves out are those of their code
(github.com/lorenmt/shape-adaptor).
"""

from __future__ import annotations

import random

from mmms_plugin.reproduction.items import (
    AIRCRAFT,
    CIFAR10,
    CIFAR100,
    IMAGENET,
    SVHN,
    WORK_DIRS,
    DataSet,
    Item,
    Measure,
    Row,
)

SOURCE = "Shape Adaptor"
REMARK = (
    "The page's video and figure of a cell are diagrams; [the page on Shape Adaptor](methods/shape_adaptor.md) has the "
    "shapes of a network. Figures of Table 1 are means of 3 trainings."
)
SHAPES = ("shapes", WORK_DIRS, "--out", "{out}")
TOP_1 = Measure("top-1 accuracy %", "accuracy/top1")
NETWORKS = dict(vgg16="VGG-16", r50="ResNet-50", mobilenetv2="MobileNetV2")
NUMBER, OUTPUT_DIM, SCALES = (f"model.backbone.{name}" for name in ("num_adaptors", "output_dim", "initial_scale"))
RANDOM_SHAPES = 200
TRANSFER_SETS = {
    column: DataSet(name, pictures, "image_dir", 64, folder=f"data/{folder}", apart=True)
    for column, name, pictures, folder in (
        ("Bird", "CUB-200-2011", 5_994, "cub200"),
        ("Cars", "Stanford Cars", 8_144, "cars"),
        ("Flowers", "Oxford 102 Flowers", 2_040, "flowers"),
        ("WikiArt", "WikiArt", 42_129, "wikiart"),
        ("Sketches", "TU-Berlin sketches", 16_000, "sketches"),
    )
}
TRANSFER = {  # in the order of TRANSFER_SETS
    "PackNet": (80.41, 86.11, 93.04, 69.40, 76.17),
    "PiggyBack": (81.59, 89.62, 94.77, 71.33, 79.91),
    "NetTailor": (82.52, 90.56, 95.79, 72.98, 80.48),
    "Fine-tune": (81.86, 89.74, 93.67, 75.60, 79.58),
    "SpotTune": (84.03, 92.40, 96.34, 75.77, 80.20),
    "AutoTL": (84.29, 93.66, 96.22, 77.47, 80.74),
}


def _table_1(data: DataSet, folder: str, epochs: int, figures: str = "", remark: str = "") -> Item:
    """A data set's line of Table 1; figures as there: each network as designed, then with adaptors."""
    published = iter(map(float, figures.split()))
    rows = tuple(
        Row(f"{title}, {design}", (next(published, None),), f"{folder}/sa_{network}{suffix}")
        for network, title in NETWORKS.items()
        for design, suffix in (("human", "_human"), ("shape adaptor", ""))
    )
    title = f"top-1 accuracy on {data.name}, networks as designed and with shape adaptors"
    small = None if data is CIFAR10 else 2  # the networks are the same
    return Item(f"sa-{folder}", SOURCE, f"Table 1, {data.name}", title, data, epochs, (TOP_1,), rows, remark,
                seeds=3, smoke_rows=small)  # fmt: skip


def _autotl(number: int, column: str, data: DataSet) -> Item:
    """A column of the table of AutoTL."""
    autotl = "imagenet/sa_r50_autotl"
    plain = {"model.backbone.mode": "human", "custom_hooks": [],
             "optim_wrapper.constructor": "DefaultOptimWrapperConstructor"}  # fmt: skip
    trained = {"Fine-tune": (autotl, plain), "AutoTL": (autotl, {})}
    rows = tuple(Row(name, (figures[number],), *trained.get(name, ())) for name, figures in TRANSFER.items())
    remark = "Add --pretrained FILE with ImageNet weights of ResNet-50; the other methods are quoted."
    if column in ("Bird", "Cars"):
        remark += " The authors crop the pictures to the objects before, and resize them to 224 x 224 without a crop."
    title = f"top-1 accuracy on {data.name}, ResNet-50 fine-tuned"
    return Item(f"sa-autotl-{column.lower()}", SOURCE, f"Table of AutoTL, {column}", title, data, 80, (TOP_1,), rows,
                remark)  # fmt: skip


def _random_shapes() -> tuple[Row, ...]:
    """VGG-16 with the four factors drawn evenly between 0.5 and 1, always the same ones."""
    draw = random.Random(0)
    rows = []
    for number in range(1, RANDOM_SHAPES + 1):
        scales = tuple(round(draw.uniform(0.501, 0.999), 3) for _ in range(4))
        rows.append(Row(f"random {number}", (None,), "cifar100/sa_vgg16_fixed", {SCALES: scales}))
    return tuple(rows)


ITEMS = (
    _table_1(CIFAR10, "cifar10", 200, "94.11 95.35 95.50 95.48 93.71 93.86"),
    _table_1(CIFAR100, "cifar100", 200, "75.39 79.16 78.53 80.29 73.80 75.74"),
    _table_1(SVHN, "svhn", 200, "96.26 96.89 96.74 96.84 96.50 96.86"),
    _table_1(AIRCRAFT, "aircraft", 200, "",
             "The authors' page shows this data set in figures only; by its table of AutoSC, MobileNetV2 as designed "
             "has 77.64."),
    _table_1(IMAGENET, "imagenet", 100, "73.92 73.53 77.18 78.74 71.72 73.32"),
    Item(
        "sa-number", SOURCE, "Figure of shapes", "VGG-16 on CIFAR-100 by the number of adaptors, and its shapes",
        CIFAR100, 200, (TOP_1,),
        (
            Row("human", (75.39,), "cifar100/sa_vgg16_human"),
            *(Row(f"{n} adaptors", (79.16 if n == 4 else None,), "cifar100/sa_vgg16", {} if n == 4 else {NUMBER: n})
              for n in (4, 6, 8)),
        ),
        "The authors' plots have 4, 6 and 8 adaptors for this network; by the formula there are 4. The figure is "
        "shapes.png.",
        after=(SHAPES,), smoke_rows=2,
    ),
    Item(
        "sa-number-aircraft", SOURCE, "Figure of shapes", "MobileNetV2 on Aircraft by the number of adaptors",
        AIRCRAFT, 200, (TOP_1,),
        (
            Row("human", (77.64,), "aircraft/sa_mobilenetv2_human"),
            *(Row(f"{n} adaptors", (None,), "aircraft/sa_mobilenetv2", {} if n == 6 else {NUMBER: n})
              for n in (6, 8, 10)),
        ),
        "The page says of 10 adaptors only that the accuracy falls. The figure is shapes.png.",
        after=(SHAPES,), smoke_rows=2,
    ),
    Item(
        "sa-initialisation", SOURCE, "Figure of learning dynamics",
        "scale of every adaptor of MobileNetV2 during training on Aircraft, by its start",
        AIRCRAFT, 200, (TOP_1,),
        tuple(Row(f"last map of {side} px before training", (None,), "aircraft/sa_mobilenetv2",
                  {} if side == 8 else {OUTPUT_DIM: side}) for side in (4, 8, 17, 22)),
        "The authors' plots have two trainings of each. The figure is trajectories.png.",
        after=(SHAPES,), smoke_rows=2,
    ),
    Item(
        "sa-initialisation-cifar100", SOURCE, "Figure of learning dynamics",
        "scale of every adaptor of VGG-16 during training on CIFAR-100, by its start",
        CIFAR100, 200, (TOP_1,),
        tuple(Row(f"last map of {side} px before training", (79.16 if side == 8 else None,), "cifar100/sa_vgg16",
                  {} if side == 8 else {OUTPUT_DIM: side}) for side in (2, 4, 8, 16)),
        "The authors' page does not name the starts; 2 px and 8 px are in their code. The figure is trajectories.png.",
        after=(SHAPES,), smoke_rows=2,
    ),
    Item(
        "sa-random", SOURCE, "Figure of random shapes", "accuracy and cost of 200 random shapes of VGG-16, CIFAR-100",
        CIFAR100, 200, (TOP_1,),
        (
            Row("human", (75.39,), "cifar100/sa_vgg16_human"),
            Row("shape adaptor", (79.16,), "cifar100/sa_vgg16"),
            *_random_shapes(),
        ),
        "By the page, the best random shape is about as good as the learned one, and accuracy stops rising at a cost "
        "of 5 G. Its memory axis counts multiply-adds: 0.314 G as designed, 5.21 G learned. The distribution of the "
        "factors is not published: here each of four is drawn evenly from 0.5 to 1. The figure is "
        "accuracy_and_cost.png, by multiply-adds and by memory.",
        after=(SHAPES,), smoke_rows=4,
    ),
    Item(
        "sa-autosc-imagenet", SOURCE, "Table of AutoSC, ImageNet", "MobileNetV2 compressed by AutoSC",
        IMAGENET, 100, (TOP_1,),
        (
            Row("human 0.75x, 233 M", (69.8,), "imagenet/sa_mobilenetv2_human",
                {"model.backbone.width_multiplier": 0.75}),
            Row("AutoSC 0.85x, 262 M", (70.7,), "imagenet/sa_mobilenetv2_085_autosc"),
            Row("human 1.0x, 330 M", (71.8,), "imagenet/sa_mobilenetv2_human"),
            Row("AutoSC 1.1x, 324 M", (72.3,), "imagenet/sa_mobilenetv2_110_autosc"),
        ),
        "The names have the published multiply-adds; `mmms shapes` counts those of a training. Table 1 has 71.72 for "
        "the human design.",
    ),
    Item(
        "sa-autosc-cifar100", SOURCE, "Table of AutoSC, CIFAR-100", "MobileNetV2 compressed by AutoSC",
        CIFAR100, 200, (TOP_1,),
        (
            Row("human, 94.7 M", (73.80,), "cifar100/sa_mobilenetv2_human"),
            Row("AutoSC, 91.5 M", (74.81,), "cifar100/sa_mobilenetv2_autosc"),
        ),
    ),
    Item(
        "sa-autosc-aircraft", SOURCE, "Table of AutoSC, Aircraft", "MobileNetV2 compressed by AutoSC",
        AIRCRAFT, 200, (TOP_1,),
        (
            Row("human, 330 M", (77.64,), "aircraft/sa_mobilenetv2_human"),
            Row("AutoSC, 326 M", (78.95,), "aircraft/sa_mobilenetv2_autosc"),
        ),
    ),
    *(_autotl(number, column, data) for number, (column, data) in enumerate(TRANSFER_SETS.items())),
)  # fmt: skip
