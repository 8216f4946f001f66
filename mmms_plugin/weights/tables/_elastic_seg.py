"""The parts of the ``elastic`` table that are not ResNeXt or DenseNet classifiers: DLA, and segmentation networks.

Segmentation files hold ``{'epoch', 'state_dict', 'optimizer'}``, keys with ``module.`` in front.
"""

from __future__ import annotations

from mmms_plugin.weights.tables import Arch, Rule
from mmms_plugin.weights.tables._dla import BACKBONE, CLASSIFIER, DECODER, TENSOR, dla, dla_up

VOC_CLASSES = 21
AS_PUBLISHED = "strides and dilations, which the file does not show, are its authors': output stride 16"


def _deeplab(depth: int, elastic: str) -> Arch:
    """Output stride 16, multi-grid (1, 2, 4) times 2."""
    backbone = dict(
        type="mmms_plugin.ElasticResNeXt",
        depth=depth,
        elastic=elastic,
        strides=[1, 2, 2, 1],
        dilations=[1, 1, 1, 2],
        multi_grid=[1, 2, 4],
    )
    head = dict(type="mmms_plugin.ASPPHead", in_channels=2048, channels=256, num_classes=VOC_CLASSES)
    return Arch(backbone, parts=dict(decode_head=head), note=AS_PUBLISHED)


ASPP = (
    *(Rule(rf"aspp\.aspp{i + 1}\.weight", f"decode_head.aspp_modules.{i}.conv.weight") for i in range(4)),
    *(Rule(rf"aspp\.aspp{i + 1}_bn\.({TENSOR})", rf"decode_head.aspp_modules.{i}.bn.\1") for i in range(4)),
    Rule(r"aspp\.aspp5\.weight", "decode_head.image_pool.1.conv.weight"),
    Rule(rf"aspp\.aspp5_bn\.({TENSOR})", r"decode_head.image_pool.1.bn.\1"),
    Rule(r"aspp\.conv2\.weight", "decode_head.bottleneck.conv.weight"),
    Rule(rf"aspp\.bn2\.({TENSOR})", r"decode_head.bottleneck.bn.\1"),
    Rule(r"aspp\.conv3\.(weight|bias)", r"decode_head.conv_seg.\1"),
)
RULES = (*BACKBONE, *CLASSIFIER, *DECODER, *ASPP)
ARCHS = {
    "dla60x": dla("60x"),
    "dla60x_elastic": dla("60x", elastic=True),
    "dla102x": dla("102x"),
    "dla102x_elastic": dla("102x", elastic=True),
    "dla60x_seg": dla_up("60x", VOC_CLASSES),
    "dla60x_elastic_seg": dla_up("60x", VOC_CLASSES, elastic=True),
    "dla102x_seg": dla_up("102x", VOC_CLASSES),
    "dla102x_elastic_seg": dla_up("102x", VOC_CLASSES, elastic=True),
    "resnext50_seg": _deeplab(50, "none"),
    "resnext50_elastic_seg": _deeplab(50, "full"),
    "resnext101_seg": _deeplab(101, "none"),
    "resnext101_elastic_seg": _deeplab(101, "full"),
}
