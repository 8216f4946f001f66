r"""Checkpoints of the ELASTIC authors: ``{'epoch', 'arch', 'state_dict', ...}``, keys with ``module.`` in front.

Each of their bottlenecks and dense layers has two paths; names that end in ``_d`` belong to the one that is, with
Elastic, at half resolution.
"""

from __future__ import annotations

from mmms_plugin.weights.tables import Arch, Rule, Table, _elastic_seg

_TENSOR = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = r"(layer\d+\.\d+)"
_LAYER = r"features\.(denseblock\d+\.denselayer\d+)"

STEM_AND_CLASSIFIER = (
    Rule(rf"((?:conv1|bn1)\.{_TENSOR})", r"backbone.\1"),
    Rule(r"fc\.(weight|bias)", r"head.fc.\1"),
)
RESNEXT = (
    Rule(rf"{_BLOCK}\.(conv[123]|bn[12])_d\.({_TENSOR})", r"backbone.\1.paths.low.\2.\3"),
    Rule(rf"{_BLOCK}\.(conv[123]|bn[12])\.({_TENSOR})", r"backbone.\1.paths.high.\2.\3"),
    Rule(rf"{_BLOCK}\.((?:bn3|downsample\.[01])\.{_TENSOR})", r"backbone.\1.\2"),
    Rule(rf"{_BLOCK}\.selayer\.conv([12])\.({_TENSOR})", r"backbone.\1.se.fc\2.\3"),
)
DENSENET = (
    Rule(rf"features\.norm_final\.({_TENSOR})", r"backbone.norm5.\1"),
    Rule(rf"features\.((?:conv0|norm0|transition\d+\.(?:norm|conv))\.{_TENSOR})", r"backbone.\1"),
    Rule(rf"{_LAYER}\.(norm1\.{_TENSOR})", r"backbone.\1.\2"),
    Rule(rf"{_LAYER}\.(conv[12]|norm2)_d\.({_TENSOR})", r"backbone.\1.paths.low.\2.\3"),
    Rule(rf"{_LAYER}\.(conv[12]|norm2)\.({_TENSOR})", r"backbone.\1.paths.high.\2.\3", when=r".+_d\..+"),
    Rule(rf"{_LAYER}\.(conv[12]|norm2)\.({_TENSOR})", r"backbone.\1.\2.\3", unless=r".+_d\..+"),
    Rule(r"classifier\.(weight|bias)", r"head.fc.\1"),
)

DENSENET_OUTPUTS = (*(f"features.denseblock{i}" for i in (1, 2, 3)), "features.norm_final")


def _resnext(depth: int, elastic: str, se_ratio: int | None = None) -> Arch:
    backbone = dict(type="mmms_plugin.ElasticResNeXt", depth=depth, elastic=elastic)
    return Arch(backbone if se_ratio is None else dict(**backbone, se_ratio=se_ratio))


def _densenet(elastic: bool) -> Arch:
    # Transitions drop the last row and column of odd sizes, as the authors' do.
    backbone = dict(type="mmms_plugin.ElasticDenseNet", depth=201, elastic=elastic, ceil_mode=False)
    return Arch(backbone, outputs=DENSENET_OUTPUTS)


TABLE = Table(
    source="elastic",
    about="ELASTIC: ResNeXt, SE-ResNeXt, DenseNet and DLA of its authors (github.com/allenai/elastic)",
    archs={
        "resnext50": _resnext(50, "none"),
        "resnext50_elastic": _resnext(50, "full"),
        "resnext101": _resnext(101, "none"),
        "resnext101_elastic": _resnext(101, "full"),
        "se_resnext50": _resnext(50, "none", 16),
        "se_resnext50_elastic": _resnext(50, "full", 16),
        "densenet201": _densenet(False),
        "densenet201_elastic": _densenet(True),
        **_elastic_seg.ARCHS,
    },
    rules=(*_elastic_seg.RULES, *STEM_AND_CLASSIFIER, *RESNEXT, *DENSENET),
    outputs=("layer1", "layer2", "layer3", "layer4"),
    before_relu=("features.norm_final",),
    hints=("best_prec1", "best_err1"),
)
