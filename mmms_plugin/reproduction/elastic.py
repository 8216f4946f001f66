"""Tables of the ELASTIC paper (Wang et al., CVPR 2019; github.com/allenai/elastic)."""

from __future__ import annotations

from typing import Any

from mmms_plugin.reproduction.items import COCO_LABELS, IMAGENET, VOC, Item, Measure, Row

SOURCE = "ELASTIC"
TOP_1 = Measure("top-1 error %", "accuracy/top1", error=True)
TOP_5 = Measure("top-5 error %", "accuracy/top5", error=True)
F1 = (Measure("F1 per class %", "labels/F1_per_class"), Measure("F1 overall %", "labels/F1_overall"))
OWN = "* the authors' implementation; rows without it quote others."
X50 = Row("ResNeXt50*", (22.23, 6.25), "imagenet/x50")
ELASTIC_X50 = Row("ResNeXt50+Elastic", (21.56, 5.83), "imagenet/elastic_x50")
DLA = Row("DLA-X60*", (21.92, 6.03), "imagenet/dla60x")
ELASTIC_DLA = Row("DLA-X60+Elastic", (21.25, 5.71), "imagenet/elastic_dla60x")
DLA_102 = Row("DLA-X102", (21.5, None), "imagenet/dla102x")
ELASTIC_DLA_102 = Row("DLA-X102+Elastic", (20.71, 5.38), "imagenet/elastic_dla102x")
SIMPLE = {"model.backbone.elastic": "simple"}


def _variant(name: str, error: float, **policy: Any) -> Row:
    """DLA-X60+Elastic with another policy, as a row of Table 6 or 7."""
    return Row(name, (error,), ELASTIC_DLA.config, {"model.backbone.elastic_cfg": policy})


ITEMS = (
    Item(
        "elastic-table1", SOURCE, "Table 1", "multiply-adds and parameters of multi-scale layers, of the plain layer's",
        None, 0, (Measure("FLOPs"), Measure("parameters")),
        (
            Row("single scale", (1.0, 1.0)),
            Row("feature pyramid, concat", (2.0, 2.0)),
            Row("feature pyramid, add", (1.0, 1.0)),
            Row("filter pyramid, standard", (2.5, 2.5)),
            Row("filter pyramid, dilated", (1.0, 1.0)),
            Row("Elastic", (0.625, 1.0)),
        ),
        "The paper's formulas, for two branches of equal width and scales of 1 and 2.",
        command=("flops", "--table", "elastic"),
    ),
    Item(
        "elastic-table2", SOURCE, "Table 2", "errors on ImageNet, with and without Elastic",
        IMAGENET, 120, (TOP_1, TOP_5),
        (
            Row("DenseNet201*", (22.25, 6.26), "imagenet/densenet201"),
            Row("DenseNet201+Elastic", (22.07, 6.00), "imagenet/elastic_densenet201"),
            Row("ResNeXt50", (22.2, None)),
            X50,
            ELASTIC_X50,
            Row("SE-ResNeXt50*", (21.87, 5.93), "imagenet/se_x50"),
            Row("SE-ResNeXt50+Elastic", (21.38, 5.86), "imagenet/se_elastic_x50"),
            Row("ResNeXt101", (21.2, 5.6)),
            Row("ResNeXt101*", (21.18, 5.83), "imagenet/x101"),
            Row("ResNeXt101+Elastic", (20.83, 5.41), "imagenet/elastic_x101"),
            Row("ResNeXt50x2+Elastic", (20.86, 5.52), ELASTIC_X50.config, {"model.backbone.groups": 64}),
            Row("DLA-X60", (21.8, None)),
            DLA,
            ELASTIC_DLA,
            DLA_102,
            ELASTIC_DLA_102,
        ),
        f"{OWN} Parameters and FLOPs: `mmms flops --table elastic`.",
    ),
    Item(
        "elastic-table3", SOURCE, "Table 3", "F1 of labels on COCO, from ImageNet weights",
        COCO_LABELS, 36, F1,
        (
            Row("ResNet101*", (69.98, 74.58), "coco_multilabel/r101_coco"),
            Row("DenseNet201*", (69.95, 74.50), "coco_multilabel/densenet201_coco"),
            Row("DenseNet201+Elastic", (70.40, 74.99), "coco_multilabel/elastic_densenet201_coco"),
            Row("DLA-X60*", (70.79, 75.41), "coco_multilabel/dla60x_coco"),
            Row("DLA-X60+Elastic", (71.35, 75.77), "coco_multilabel/elastic_dla60x_coco"),
            Row("ResNeXt50*", (70.12, 74.52), "coco_multilabel/x50_coco"),
            Row("ResNeXt50+Elastic", (71.08, 75.37), "coco_multilabel/elastic_x50_coco"),
            Row("ResNeXt101*", (70.95, 75.21), "coco_multilabel/x101_coco"),
            Row("ResNeXt101+Elastic", (71.83, 75.93), "coco_multilabel/elastic_x101_coco"),
        ),
        "Add --pretrained FILE with the weights of Table 2.",
    ),
    Item(
        "elastic-table5", SOURCE, "Table 5", "mIoU on PASCAL VOC, from ImageNet weights",
        VOC, 50, (Measure("mIoU %", "mIoU"),),
        (
            Row("ResNet101 (text)", (77.21,)),
            Row("ResNeXt50*", (75.29,), "deeplabv3_x50_voc12aug"),
            Row("ResNeXt50+Elastic", (77.70,), "deeplabv3_elastic_x50_voc12aug"),
            Row("ResNeXt101*", (77.47,), "deeplabv3_x101_voc12aug"),
            Row("ResNeXt101+Elastic", (78.51,), "deeplabv3_elastic_x101_voc12aug"),
            Row("DLA-X60*", (69.96,), "dla60x_up_voc12aug"),
            Row("DLA-X60+Elastic", (73.59,), "elastic_dla60x_up_voc12aug"),
        ),
        "Add --pretrained FILE with the weights of Table 2.",
    ),
    Item(
        "elastic-table6", SOURCE, "Table 6", "ways of down- and up-sampling in DLA-X60+Elastic, on ImageNet",
        IMAGENET, 120, (TOP_1,),
        (
            Row("original, no Elastic", (21.92,), DLA.config),
            Row("bilinear, average pooling", (21.25,), ELASTIC_DLA.config),
            _variant("nearest, average pooling", 21.49, method="nearest"),
            _variant("trained dilated, average pooling", 21.20, method="dilated"),
            _variant("trained dilated", 21.60, method="dilated", pool=False),
            _variant("trained", 21.52, method="trained", pool=False),
        ),
        "FLOPs: `mmms flops --table elastic`.",
    ),
    Item(
        "elastic-table7", SOURCE, "Table 7", "shares of high and low resolution in DLA-X60+Elastic, on ImageNet",
        IMAGENET, 120, (TOP_1,),
        (
            Row("100 % high", (21.92,), DLA.config),
            Row("50 % high, 50 % low", (21.25,), ELASTIC_DLA.config),
            _variant("75 % high, 25 % low", 21.35, shares=(0.75, 0.25)),
            _variant("25 % high, 75 % low", 21.44, shares=(0.25, 0.75)),
        ),
        "FLOPs: `mmms flops --table elastic`.",
    ),
    Item(
        "elastic-table8", SOURCE, "Table 8", "errors of sElastic on ImageNet",
        IMAGENET, 120, (TOP_1, TOP_5),
        (
            Row("ResNeXt50", (22.2, None)),
            X50,
            Row("ResNeXt50+sElastic", (22.03, 6.07), ELASTIC_X50.config, SIMPLE),
            ELASTIC_X50,
            Row("DLA-X60", (21.8, None)),
            DLA,
            Row("DLA-X60+sElastic", (21.25, 5.71), ELASTIC_DLA.config),
            ELASTIC_DLA,
            DLA_102,
            Row("DLA-X102+sElastic", (21.0, 5.66), ELASTIC_DLA_102.config, SIMPLE),
            ELASTIC_DLA_102,
        ),
        f"{OWN} DLA-X60+sElastic and DLA-X60+Elastic are the same network. Parameters and FLOPs: "
        "`mmms flops --table elastic`.",
    ),
)  # fmt: skip
