"""Tables of the PSConv paper (Li, Yao and Chen, ECCV 2020; github.com/d-li14/PSConv).

Patterns are rotated by one place, as in the authors' weights: {1, 2, 1, 4} is (2, 1, 4, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmms_plugin.reproduction.items import CIFAR100, COCO, IMAGENET, Item, Measure, Row

SOURCE = "PSConv"
REMARK = "Figures 1 and 2 are diagrams; [the page on PSConv](methods/psconv.md) has them, drawn from the layer."
TOP_1 = Measure("top-1 error %", "accuracy/top1", error=True, digits=3)
TOP_5 = Measure("top-5 error %", "accuracy/top5", error=True, digits=3)
ERRORS = (TOP_1, TOP_5)
PATTERN = "model.backbone.dilation_pattern"
PS_R50 = "imagenet/ps_resnet50"
BOX = tuple(
    Measure(f"box {name}", f"coco/bbox_mAP{suffix}", scale=100, digits=1)
    for name, suffix in (("AP", ""), ("AP50", "_50"), ("AP75", "_75"), ("APS", "_s"), ("APM", "_m"), ("APL", "_l"))
)
MASK = tuple(
    Measure(measure.title.replace("box", "mask"), measure.metric.replace("bbox", "segm"), scale=100, digits=1)
    for measure in BOX
)
PLAIN_ROW = Row("ResNet-50", (22.850, 6.532), "imagenet/resnet50")
DEFAULT = (21.126, 5.724)


def _variant(name: str, published: tuple[float | None, ...], options: Mapping[str, Any]) -> Row:
    return Row(name, published, PS_R50, options)


def _detectors(kind: str, host: str, backbone: str, plain: str, ps: str) -> tuple[Row, Row]:
    """The rows of a detector with mmdet's backbone and with PSConv; figures as a line of the paper's table."""
    standard, own = f"mmdet::{host}_{backbone}_fpn_1x_coco", f"{kind}_ps_{backbone.replace('-', '_')}_fpn_1x"
    name = kind.replace("_", " ").title().replace("Rcnn", "R-CNN")
    rows = (("standard", plain, standard), ("PSConv", ps, own))
    first, second = (
        Row(f"{name}, {backbone}, {layer}", tuple(map(float, figures.split())), config)
        for layer, figures, config in rows
    )
    return first, second


ITEMS = (
    Item(
        "psconv-table1", SOURCE, "Table 1", "errors on ImageNet, standard convolution and PSConv",
        IMAGENET, 120, ERRORS,
        (
            PLAIN_ROW,
            Row("PS-ResNet-50", DEFAULT, PS_R50),
            Row("ResNet-101", (21.102, 5.696), "imagenet/resnet101"),
            Row("PS-ResNet-101", (19.954, 5.052), "imagenet/ps_resnet101"),
            Row("ResNeXt-50 32x4d", (21.802, 6.084), "imagenet/resnext50_32x4d"),
            Row("PS-ResNeXt-50 32x4d", (20.378, 5.296), "imagenet/ps_resnext50_32x4d"),
            Row("ResNeXt-101 32x4d", (20.502, 5.390), "imagenet/resnext101_32x4d"),
            Row("PS-ResNeXt-101 32x4d", (19.498, 4.724), "imagenet/ps_resnext101_32x4d"),
            Row("SE-ResNet-50", (22.192, 6.040), "imagenet/se_resnet50"),
            Row("PS-SE-ResNet-50", (20.814, 5.578), "imagenet/ps_se_resnet50"),
            Row("SE-ResNet-101", (20.732, 5.406), "imagenet/se_resnet101"),
            Row("PS-SE-ResNet-101", (19.786, 4.924), "imagenet/ps_se_resnet101"),
        ),
        "The figures are those of each training's best epoch.", best=True,
    ),
    Item(
        "psconv-table2", SOURCE, "Table 2", "errors of multi-scale networks on ImageNet",
        IMAGENET, 120, ERRORS,
        (
            PLAIN_ROW,
            Row("PS-ResNet-50", DEFAULT, PS_R50),
            Row("DRN-A-50", (22.9, 6.6)),
            Row("DRN-D-54", (21.2, 5.9)),
            Row("FishNet-150, stepwise", (21.86, 6.05)),
            Row("FishNet-150, cosine, label smoothing", (20.65, 5.25)),
            Row("HRNet-W18-C", (23.2, 6.6)),
            Row("OctResNet-50, alpha 0.5", (22.6, 6.4)),
            Row("bL-ResNet-50, alpha 2, beta 4", (22.69, None)),
            Row("Res2Net-50 26w x 4s", (22.01, 6.15)),
            Row("ScaleNet-50", (22.02, 6.05)),
        ),
        "The other networks are quoted by the paper and not in this package.", best=True,
    ),
    Item(
        "psconv-table3", SOURCE, "Table 3", "cyclic intervals of PS-ResNet-50, one dilation of 2 in each",
        IMAGENET, 120, ERRORS,
        (
            Row("t = 1", (22.850, 6.532), PLAIN_ROW.config),
            *(_variant(f"t = {t}", errors, {PATTERN: (2, *[1] * (t - 1))})
              for t, errors in ((2, (21.948, 5.978)), (4, (21.476, 5.720)), (8, (21.634, 5.816)))),
        ),
        "By the text, t = 4 is the pattern {1, 2, 1, 1}, for which Table 4 gives 22.368 / 6.214.", best=True,
    ),
    Item(
        "psconv-table4", SOURCE, "Table 4", "dilation patterns of PS-ResNet-50",
        IMAGENET, 120, ERRORS,
        (
            Row("{1, 1, 1, 1}", (22.850, 6.532), PLAIN_ROW.config),
            _variant("{1, 2, 1, 1}", (22.368, 6.214), {PATTERN: (2, 1, 1, 1)}),
            _variant("{1, 4, 1, 1}", (22.754, 6.470), {PATTERN: (4, 1, 1, 1)}),
            _variant("{1, 2, 1, 2}", (21.948, 5.978), {PATTERN: (2, 1)}),
            Row("{1, 2, 1, 4}", DEFAULT, PS_R50),
            _variant("{1, 2, 4, 8} (text)", (None, None), {PATTERN: (2, 4, 8, 1)}),
            _variant("learnable mask, 1 or 2 (text)", (21.138, None),
                     {PATTERN: None, "model.backbone.conv_cfg": dict(type="mmms_plugin.DynamicPSConv")}),
        ),
        "The last two rows are in section 4.2; for {1, 2, 4, 8} it says only: over 5 points worse.", best=True,
    ),
    Item(
        "psconv-table5", SOURCE, "Table 5", "dilations that vary along one axis of the kernel lattice, or both",
        IMAGENET, 120, ERRORS,
        (
            _variant("input channels", (21.658, 5.832), {"model.backbone.axes": "input"}),
            _variant("output channels", (22.056, 6.174), {"model.backbone.axes": "output"}),
            Row("both", DEFAULT, PS_R50),
        ),
        best=True,
    ),
    Item(
        "psconv-table6", SOURCE, "Table 6", "top-1 error on CIFAR-100",
        CIFAR100, 300, (TOP_1,),
        (
            Row("ResNeXt-29 8x64d, official", (17.77,)),
            Row("ResNeXt-29 8x64d", ("18.074 ± 0.130",), "cifar100/resnext29_8x64d"),
            Row("PS-ResNeXt-29 8x64d", ("17.138 ± 0.286",), "cifar100/ps_resnext29_8x64d"),
            Row("ResNeXt-29 16x64d, official", (17.31,)),
            Row("ResNeXt-29 16x64d", ("17.538 ± 0.094",), "cifar100/resnext29_16x64d"),
            Row("PS-ResNeXt-29 16x64d", ("16.528 ± 0.353",), "cifar100/ps_resnext29_16x64d"),
        ),
        "Mean and standard deviation.", seeds=5, smoke_rows=3,
    ),
    Item(
        "psconv-faster-rcnn", SOURCE, "Supplement", "box AP of Faster and Cascade R-CNN on COCO val2017",
        COCO, 12, BOX[:1],
        (
            *_detectors("faster_rcnn", "faster_rcnn/faster-rcnn", "r50", "36.4", "38.4"),
            *_detectors("faster_rcnn", "faster_rcnn/faster-rcnn", "r101", "38.5", "40.9"),
            *_detectors("faster_rcnn", "faster_rcnn/faster-rcnn", "x101-32x4d", "40.1", "41.3"),
            *_detectors("cascade_rcnn", "cascade_rcnn/cascade-rcnn", "r50", "40.4", "41.9"),
            *_detectors("cascade_rcnn", "cascade_rcnn/cascade-rcnn", "r101", "42.0", "43.8"),
            *_detectors("cascade_rcnn", "cascade_rcnn/cascade-rcnn", "x101-32x4d", "43.6", "44.4"),
        ),
        "PSConv: the authors' repository; standard: mmdet 1.0's model zoo, whose Mask R-CNN is Table 7's. By "
        "the paper, a neck with PSConv as well gives 38.6.",
    ),
    Item(
        "psconv-table7", SOURCE, "Table 7", "box and mask AP on COCO val2017",
        COCO, 12, (*BOX, *MASK),
        (
            *_detectors("mask_rcnn", "mask_rcnn/mask-rcnn", "r50",
                        "37.3 59.0 40.2 21.9 40.9 48.1 34.2 55.9 36.2 15.8 36.9 50.1",
                        "39.4 61.3 42.8 24.1 43.1 51.3 35.6 57.9 37.9 17.2 38.4 52.4"),
            *_detectors("mask_rcnn", "mask_rcnn/mask-rcnn", "r101",
                        "39.4 60.9 43.3 23.0 43.7 51.4 35.9 57.7 38.4 16.8 39.1 53.6",
                        "41.6 63.4 45.1 24.7 45.6 54.4 37.4 60.0 39.8 17.8 40.4 55.1"),
            *_detectors("mask_rcnn", "mask_rcnn/mask-rcnn", "x101-32x4d",
                        "41.1 62.8 45.0 24.0 45.4 52.6 37.1 59.4 39.7 17.7 40.5 53.8",
                        "42.4 64.4 46.1 25.4 46.5 55.7 38.0 60.8 40.5 18.6 41.0 55.8"),
            *_detectors("cascade_mask_rcnn", "cascade_rcnn/cascade-mask-rcnn", "r50",
                        "41.2 59.1 45.1 23.3 44.5 54.5 35.7 56.3 38.6 16.4 38.2 52.6",
                        "42.9 61.7 46.9 24.2 46.5 57.2 36.9 58.4 39.5 17.1 39.4 54.6"),
            *_detectors("cascade_mask_rcnn", "cascade_rcnn/cascade-mask-rcnn", "r101",
                        "42.6 60.7 46.7 23.8 46.4 56.9 37.0 58.0 39.9 16.7 40.3 54.6",
                        "44.6 63.2 48.6 25.9 48.7 59.6 38.4 60.5 41.2 18.6 41.5 56.8"),
            *_detectors("cascade_mask_rcnn", "cascade_rcnn/cascade-mask-rcnn", "x101-32x4d",
                        "44.4 62.6 48.6 25.4 48.1 58.7 38.2 59.6 41.2 18.3 41.4 55.6",
                        "45.3 64.2 49.5 27.0 49.2 60.0 38.9 61.1 41.8 19.4 41.9 56.6"),
        ),
        "The standard rows are mmdet 1.0's; mmdet 3's configs differ in losses, proposals, warm-up and RoIAlign. Add "
        "--pretrained FILE with weights of a stepwise schedule to the PSConv rows, as the paper has.",
    ),
    Item(
        "psconv-speed", SOURCE, "Section 4.2", "time of a layer, 64 channels, 56 x 56 px, batch 200, on a Titan X",
        None, 0, (Measure("times the plain layer"),),
        (Row("plain, 4.85 ms", (1.0,)), Row("dilated by 2", (2.99,)), Row("PSConv", (round(2.99 * 1.14, 2),))),
        "The paper gives PSConv as 1.14 times the dilated layer. Add --device cuda for a GPU.",
        command=("benchmark", "layers", "--batch", "200"), smoke=("--batch", "1", "--rounds", "1"),
    ),
)  # fmt: skip
