"""Tables and figures of the ELASTIC paper (Wang et al., CVPR 2019; github.com/allenai/elastic)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmms_plugin.reproduction.items import COCO_LABELS, IMAGENET, MACS, PARAMS, VOC, Item, Measure, Row

SOURCE = "ELASTIC"
TOP_1 = Measure("top-1 error %", "accuracy/top1", error=True)
TOP_5 = Measure("top-5 error %", "accuracy/top5", error=True)
F1 = (Measure("F1 per class %", "labels/F1_per_class"), Measure("F1 overall %", "labels/F1_overall"))
REMARK = "Figures 1 to 3 are diagrams: the idea, and Elastic beside other pyramids."
OWN = "Rows with an asterisk are the authors' implementation; their namesakes without it are quoted."
PARAMETERS = Measure("parameters M", PARAMS, scale=1e-6, digits=1)
FLOPS = Measure("GFLOPs", MACS, scale=1e-9, digits=1)
COSTS_AND_ERRORS = (PARAMETERS, FLOPS, TOP_1, TOP_5)
X50 = Row("ResNeXt50*", (25.0, 4.2, 22.23, 6.25), "imagenet/x50")
ELASTIC_X50 = Row("ResNeXt50+Elastic", (25.2, 4.2, 21.56, 5.83), "imagenet/elastic_x50")
DLA = Row("DLA-X60*", (17.6, 3.6, 21.92, 6.03), "imagenet/dla60x")
ELASTIC_DLA = Row("DLA-X60+Elastic", (17.6, 3.2, 21.25, 5.71), "imagenet/elastic_dla60x")
DLA_102 = Row("DLA-X102", (26.8, 6.0, 21.5, None), "imagenet/dla102x")
ELASTIC_DLA_102 = Row("DLA-X102+Elastic", (25.0, 6.0, 20.71, 5.38), "imagenet/elastic_dla102x")
QUOTED_X50 = Row("ResNeXt50", (25.0, 4.2, 22.2, None))
QUOTED_DLA = Row("DLA-X60", (17.6, 3.6, 21.8, None))
SIMPLE = {"model.backbone.elastic": "simple"}
TABLE_2 = (
    Row("DenseNet201*", (20.0, 4.4, 22.25, 6.26), "imagenet/densenet201"),
    Row("DenseNet201+Elastic", (19.5, 4.3, 22.07, 6.00), "imagenet/elastic_densenet201"),
    QUOTED_X50,
    X50,
    ELASTIC_X50,
    Row("SE-ResNeXt50*", (27.6, 4.2, 21.87, 5.93), "imagenet/se_x50"),
    Row("SE-ResNeXt50+Elastic", (27.8, 4.2, 21.38, 5.86), "imagenet/se_elastic_x50"),
    Row("ResNeXt101", (44.2, 8.0, 21.2, 5.6)),
    Row("ResNeXt101*", (44.2, 8.0, 21.18, 5.83), "imagenet/x101"),
    Row("ResNeXt101+Elastic", (44.3, 7.9, 20.83, 5.41), "imagenet/elastic_x101"),
    Row("ResNeXt50x2+Elastic", (45.6, 7.9, 20.86, 5.52), ELASTIC_X50.config, {"model.backbone.groups": 64}),
    QUOTED_DLA,
    DLA,
    ELASTIC_DLA,
    DLA_102,
    ELASTIC_DLA_102,
)
LABELS_X50 = Row("ResNeXt50*", (70.12, 74.52), "coco_multilabel/x50_coco")
LABELS_ELASTIC_X50 = Row("ResNeXt50+Elastic", (71.08, 75.37), "coco_multilabel/elastic_x50_coco")
F1_DLA, F1_ELASTIC_DLA = (70.79, 75.41), (71.35, 75.77)
LABELS_DLA = Row("DLA-X60*", F1_DLA, "coco_multilabel/dla60x_coco")
LABELS_ELASTIC_DLA = Row("DLA-X60+Elastic", F1_ELASTIC_DLA, "coco_multilabel/elastic_dla60x_coco")
VOC_X50 = Row("ResNeXt50*", (75.29,), "deeplabv3_x50_voc12aug")
VOC_ELASTIC_X50 = Row("ResNeXt50+Elastic", (77.70,), "deeplabv3_elastic_x50_voc12aug")
TEST_SIDES = (96, 224, 448, 896)
STANDARD_TEST = tuple(
    round(100 * (elastic / plain - 1), 2) for plain, elastic in zip(F1_DLA, F1_ELASTIC_DLA, strict=True)
)
PRETRAINED = "Add --pretrained FILE with the weights of Table 2."


def _layer(name: str, macs: float, params: float = 1.0) -> Row:
    """A row of Table 1, by the paper's formulas."""
    return Row(name, (macs, params), layer=name)


def _variant(name: str, flops: float, error: float, **policy: Any) -> Row:
    """DLA-X60+Elastic with another policy, as a row of Table 6 or 7."""
    return Row(name, (flops, error), ELASTIC_DLA.config, {"model.backbone.elastic_cfg": policy})


def _as(name: str, row: Row, published: tuple[float | None, ...], **options: Any) -> Row:
    """A row's network as another table has it."""
    return replace(row, name=name, published=published, **options)


ITEMS = (
    Item(
        "elastic-table1", SOURCE, "Table 1", "multiply-adds and parameters of multi-scale layers, of the plain layer's",
        None, 0,
        (Measure("FLOPs", MACS, digits=3), Measure("parameters", PARAMS, digits=3)),
        (
            _layer("single scale", 1.0),
            _layer("feature pyramid, concat", 2.0, 2.0),
            _layer("feature pyramid, add", 1.0),
            _layer("filter pyramid, standard", 2.5, 2.5),
            _layer("filter pyramid, dilated", 1.0),
            _layer("Elastic", 0.625),
        ),
        "The paper's formulas, for two branches of equal width and scales of 1 and 2.",
        command=("flops", "--table", "elastic"),
    ),
    Item(
        "elastic-table2", SOURCE, "Table 2", "errors on ImageNet, with and without Elastic",
        IMAGENET, 120, COSTS_AND_ERRORS, TABLE_2, OWN,
    ),
    Item(
        "elastic-figure4", SOURCE, "Figure 4", "errors on ImageNet over parameters and FLOPs",
        IMAGENET, 120, COSTS_AND_ERRORS[:3], tuple(replace(row, published=row.published[:3]) for row in TABLE_2),
        "The networks of Table 2.", figure="errors over costs",
    ),
    Item(
        "elastic-figures5-6", SOURCE, "Figures 5, 6, 8, 9", "scale policies of classes and of pictures",
        IMAGENET, 120, (), (_as("ResNeXt50+Elastic", ELASTIC_X50, ()), _as("ResNeXt50", X50, ())),
        "Figure 5 is classes.png; Figure 6 is map.png, blocks.png and answers.png; Figures 8 and 9 show policy.html.",
        after=(("scale-policy", "{0.config}", "{0.checkpoint}", "--compare-config", "{1.config}", "--compare",
                "{1.checkpoint}", "--images", "data/imagenet/val", "--out", "{out}"),),
        smoke=("--images", "{pictures}/train", "--image-size", "64x64", "--fields", "0"),
    ),
    Item(
        "elastic-table3", SOURCE, "Table 3", "F1 of labels on COCO, from ImageNet weights",
        COCO_LABELS, 36, F1,
        (
            Row("ResNet101*", (69.98, 74.58), "coco_multilabel/r101_coco"),
            Row("DenseNet201*", (69.95, 74.50), "coco_multilabel/densenet201_coco"),
            Row("DenseNet201+Elastic", (70.40, 74.99), "coco_multilabel/elastic_densenet201_coco"),
            LABELS_DLA,
            LABELS_ELASTIC_DLA,
            LABELS_X50,
            LABELS_ELASTIC_X50,
            Row("ResNeXt101*", (70.95, 75.21), "coco_multilabel/x101_coco"),
            Row("ResNeXt101+Elastic", (71.83, 75.93), "coco_multilabel/elastic_x101_coco"),
        ),
        f"{PRETRAINED} In the mean over the classes, one that never occurs counts as 0 in the authors' code and not at "
        "all here; on val2014 all occur.",
    ),
    Item(
        "elastic-table4", SOURCE, "Table 4", "relative improvement on COCO, by the sizes of a picture's objects",
        COCO_LABELS, 36, (Measure("improvement %", "labels/F1_overall_{}", digits=1),),
        (
            Row("small", (4.1,), part="S"),
            Row("medium", (0.5,), part="M"),
            Row("medium and small", (1.3,), part="MS"),
            Row("large", (1.0,), part="L"),
            Row("large and small", (2.2,), part="LS"),
            Row("large and medium", (2.1,), part="LM"),
            Row("large, medium and small", (1.8,), part="LMS"),
        ),
        "The paper names neither the depth of the ResNeXt nor the measure: here ResNeXt-50 and F1 overall. "
        f"{PRETRAINED}",
        compared=(LABELS_X50, LABELS_ELASTIC_X50),
    ),
    Item(
        "elastic-figure7", SOURCE, "Figure 7", "relative improvement of F1 on COCO, by the size of the pictures",
        COCO_LABELS, 36,
        (Measure("F1 per class %", "{}/labels/F1_per_class"), Measure("F1 overall %", "{}/labels/F1_overall")),
        tuple(Row(f"{side} px", STANDARD_TEST if side == 224 else (None, None), part=str(side)) for side in TEST_SIDES),
        f"The bars have no numbers in the paper; those of 224 px follow from Table 3. {PRETRAINED}",
        compared=(LABELS_DLA, LABELS_ELASTIC_DLA),
        after=tuple(
            ("stress-test", f"{{{i}.config}}", f"{{{i}.checkpoint}}", *COCO_LABELS.words,
             "--sizes", *map(str, TEST_SIDES), "--out", f"{{out}}/{{{i}.folder}}")
            for i in (0, 1)
        ),
        smoke=("--coco-dir", "{pictures}", "--sizes", "32", "64", "96", "128"),
        figure="bars",
    ),
    Item(
        "elastic-table5", SOURCE, "Table 5", "mIoU on PASCAL VOC, from ImageNet weights",
        VOC, 50, (Measure("mIoU %", "mIoU"),),
        (
            Row("ResNet101* (text)", (77.21,), "deeplabv3_r101_voc12aug"),
            VOC_X50,
            VOC_ELASTIC_X50,
            Row("ResNeXt101*", (77.47,), "deeplabv3_x101_voc12aug"),
            Row("ResNeXt101+Elastic", (78.51,), "deeplabv3_elastic_x101_voc12aug"),
            Row("DLA-X60*", (69.96,), "dla60x_up_voc12aug"),
            Row("DLA-X60+Elastic", (73.59,), "elastic_dla60x_up_voc12aug"),
        ),
        PRETRAINED,
    ),
    Item(
        "elastic-figure10", SOURCE, "Figure 10", "segmentation of pictures of PASCAL VOC",
        VOC, 50, (), (_as("ResNeXt50*", VOC_X50, ()), _as("ResNeXt50+Elastic", VOC_ELASTIC_X50, ())),
        f"The paper does not name the networks. {PRETRAINED}",
        after=tuple(
            ("test", f"{{{i}.config}}", f"{{{i}.checkpoint}}", "--show-dir", f"{{out}}/{{{i}.folder}}") for i in (0, 1)
        ),
        smoke=("--voc-dir", "{pictures}", "--image-size", "65x65"),
    ),
    Item(
        "elastic-table6", SOURCE, "Table 6", "ways of down- and up-sampling in DLA-X60+Elastic, on ImageNet",
        IMAGENET, 120, (FLOPS, TOP_1),
        (
            _as("original, no Elastic", DLA, (3.6, 21.92)),
            _as("bilinear w/ AP", ELASTIC_DLA, (3.2, 21.25)),
            _variant("nearest w/ AP", 3.2, 21.49, method="nearest"),
            _variant("trained dilated w/ AP", 3.6, 21.20, method="dilated"),
            _variant("trained dilated", 3.6, 21.60, method="dilated", pool=False),
            _variant("trained", 3.2, 21.52, method="trained", pool=False),
        ),
        "AP: average pooling.",
    ),
    Item(
        "elastic-table7", SOURCE, "Table 7", "shares of high and low resolution in DLA-X60+Elastic, on ImageNet",
        IMAGENET, 120, (FLOPS, TOP_1),
        (
            _as("100 % high", DLA, (3.6, 21.92)),
            _as("50 % high, 50 % low", ELASTIC_DLA, (3.2, 21.25)),
            _variant("75 % high, 25 % low", 3.4, 21.35, shares=(0.75, 0.25)),
            _variant("25 % high, 75 % low", 2.9, 21.44, shares=(0.25, 0.75)),
        ),
    ),
    Item(
        "elastic-table8", SOURCE, "Table 8", "errors of sElastic on ImageNet",
        IMAGENET, 120, COSTS_AND_ERRORS,
        (
            QUOTED_X50,
            X50,
            _as("ResNeXt50+sElastic", ELASTIC_X50, (25.0, 3.4, 22.03, 6.07), options=SIMPLE),
            ELASTIC_X50,
            QUOTED_DLA,
            DLA,
            _as("DLA-X60+sElastic", ELASTIC_DLA, (17.6, 3.2, 21.25, 5.71)),
            ELASTIC_DLA,
            DLA_102,
            _as("DLA-X102+sElastic", ELASTIC_DLA_102, (26.8, 5.0, 21.0, 5.66), options=SIMPLE),
            _as("DLA-X102+Elastic", ELASTIC_DLA_102, (24.9, 6.0, 20.71, 5.38)),
        ),
        f"{OWN} DLA-X60+sElastic and DLA-X60+Elastic are the same network.",
    ),
    Item(
        "elastic-tables9-11", SOURCE, "Tables 9 to 11", "parameters and FLOPs of the architectures",
        None, 0, (PARAMETERS, FLOPS),
        (
            _as("DLA-X60", DLA, (17.7, 3.6)),
            _as("DLA-X60+Elastic", ELASTIC_DLA, (17.7, 3.2)),
            _as("DLA-X102", DLA_102, (26.8, 6.0)),
            _as("DLA-X102+sElastic", ELASTIC_DLA_102, (26.8, 5.0), options=SIMPLE),
            _as("DLA-X102+Elastic", ELASTIC_DLA_102, (24.9, 6.0)),
            _as("ResNeXt50", X50, (25.0, 4.2)),
            _as("ResNeXt50+sElastic", ELASTIC_X50, (25.0, 3.4), options=SIMPLE),
            _as("ResNeXt50+Elastic", ELASTIC_X50, (25.2, 4.2)),
            _as("DenseNet201", TABLE_2[0], (20.0, 4.4)),
            _as("DenseNet201+Elastic", TABLE_2[1], (19.5, 4.2)),
        ),
    ),
)  # fmt: skip
