"""Every published checkpoint of the methods, with address, licence and accuracy.

Addresses and figures are the authors' own, copied from their README or paper and not fetched: nothing here was
downloaded, so every entry is unverified. ``record`` names a golden record of the same architecture in this project's
tests, made by the authors' code: there, keys, shapes and outputs were checked with generated weights.

Named by their authors, but without an address: PS-ResNeXt-50 32x4d, SE-PS-ResNets (PSConv); SE-ResNeXt50,
DLA-X102+Elastic, ResNeXt50x2+Elastic, sElastic (ELASTIC); all of Shape Adaptor. DLA's README no longer names any; the
addresses are those that timm's model cards keep, whose accuracy timm measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Method = Literal["psconv", "elastic", "dla", "shape_adaptor", "msdnet"]
Task = Literal["classification", "multi-label", "detection", "instance segmentation", "semantic segmentation"]
Metric = Literal[
    "top-1 error", "top-5 error", "top-1 accuracy", "top-5 accuracy", "box AP", "mask AP", "F1 per class", "F1 overall",
    "mIoU",
]  # fmt: skip

DRIVE = "https://drive.google.com/file/d/{}/view?usp=sharing"
ELASTIC_ROOT = "http://ai2-vision.s3.amazonaws.com/elastic"
DLA_ROOT = "http://dl.yf.io/dla/models/imagenet"


@dataclass(frozen=True)
class Figure:
    """A published result, in percent (AP, F1 and mIoU are 100 at best, too)."""

    metric: Metric
    value: float

    def __str__(self) -> str:
        percent = " %" if self.metric.endswith(("error", "accuracy")) else ""
        return f"{self.value:g}{percent} {self.metric}"


@dataclass(frozen=True)
class Entry:
    """One published checkpoint.

    Attributes:
        method: the method that it belongs to.
        name: as its authors call it.
        task, dataset: what it was trained for and on; None if no weights are published.
        source, arch: for ``mmms convert``; None if there is no key-map table.
        parameters: of the converted backbone, without the classifier; None if there is no key-map table.
        address: as published, or None.
        licence: SPDX name of the repository's licence, or None.
        figures: as published.
        measured_by: ``'authors'``, or who else measured them.
        record: golden record of the architecture in the tests, or None.
        remark: anything else.
    """

    method: Method
    name: str
    task: Task | None = None
    dataset: str | None = None
    source: str | None = None
    arch: str | None = None
    parameters: int | None = None
    address: str | None = None
    licence: str | None = None
    figures: tuple[Figure, ...] = ()
    measured_by: str = "authors"
    record: str | None = None
    remark: str = ""

    @property
    def status(self) -> str:
        """What could be verified; never the file itself."""
        return "unverified; layout and outputs of the architecture checked" if self.record else "unverified"

    @property
    def accuracy(self) -> str:
        """The figures as one text: ``74.62 % top-1 accuracy, 92.06 % top-5 accuracy (timm)``."""
        by = "" if self.measured_by == "authors" or not self.figures else f" ({self.measured_by})"
        return ", ".join(map(str, self.figures)) + by

    @property
    def trained_for(self) -> str:
        """Task and data set as one text."""
        return f"{self.task}, {self.dataset}" if self.task else ""


# source and arch: parameters of the backbone; a test counts them again
_PARAMETERS: Mapping[tuple[str, str], int] = {
    ("psconv", "ps_resnet50"): 23_508_032,
    ("psconv", "ps_resnet101"): 42_500_160,
    ("psconv", "ps_resnext101_32x4d"): 43_462_720,
    ("elastic", "resnext50"): 22_979_904,
    ("elastic", "resnext50_elastic"): 23_197_504,
    ("elastic", "resnext101"): 42_128_704,
    ("elastic", "resnext101_elastic"): 42_216_256,
    ("elastic", "dla60x"): 16_327_344,
    ("elastic", "dla60x_elastic"): 16_327_344,
    ("elastic", "dla102x"): 25_284_272,
    ("elastic", "se_resnext50_elastic"): 25_754_976,
    ("elastic", "densenet201"): 18_092_928,
    ("elastic", "densenet201_elastic"): 17_673_824,
    ("dla", "dla34"): 15_229_104,
    ("dla", "dla46_c"): 1_044_400,
    ("dla", "dla46x_c"): 811_440,
    ("dla", "dla60x_c"): 1_062_832,
    ("dla", "dla60"): 21_011_632,
    ("dla", "dla60x"): 16_327_344,
    ("dla", "dla102"): 32_243_888,
    ("dla", "dla102x"): 25_284_272,
    ("dla", "dla102x2"): 40_257_200,
    ("dla", "dla169"): 52_364_720,
    ("msdnet", "imagenet_step4"): 7_114_528,
}
# name, arch, Google Drive id, top-1 and top-5 error (PSConv paper, Table 1), golden record
_PS_BACKBONES = (
    ("PS-ResNet-50", "ps_resnet50", "155pB1vci62zQV6AmY4MsCw5zLL0qYmG4", (21.126, 5.724), "psconv_ps_resnet50"),
    ("PS-ResNet-101", "ps_resnet101", "15kgctzliEguQHihJoNeG65Vld9DGEITV", (19.954, 5.052), None),
    ("PS-ResNeXt-101 32x4d", "ps_resnext101_32x4d", "1dbttT3PvILRQvA9f0nKCLvQNg1a2QsVD", (19.498, 4.724), None),
)
# detector, arch, Google Drive id, box AP and mask AP on COCO val2017 (README of github.com/d-li14/PSConv)
_PS_DETECTORS = (
    ("Faster R-CNN", "ps_resnet50", "1sXHMMCWD9PS73gBRw-C5KoorjzFCfKkA", (38.4,)),
    ("Faster R-CNN", "ps_resnet101", "1NV2dPYBb8lnDS75we0u-qHnPP_pfI6DG", (40.9,)),
    ("Faster R-CNN", "ps_resnext101_32x4d", "1Hct7d_OrVMP2LZmgMu0DncY1NpCpS_E2", (41.3,)),
    ("Mask R-CNN", "ps_resnet50", "1cuXnMNQbv_B3nKEWnstbOJRPdMRu9twn", (39.4, 35.6)),
    ("Mask R-CNN", "ps_resnet101", "1U5G4uyb5DM-1NS06qOEzCVyEAaDxcvRL", (41.6, 37.4)),
    ("Mask R-CNN", "ps_resnext101_32x4d", "1B0GV_PeXDz4_O0iM57GbWSUBXwExZdAs", (42.4, 38.0)),
    ("Cascade R-CNN", "ps_resnet50", "13i8U-QOpFBhIUndqgYjpH6sD5ram6LFP", (41.9,)),
    ("Cascade R-CNN", "ps_resnet101", "1bOWvZfwttuiAjNZhOJin_afji4X1P5Vx", (43.8,)),
    ("Cascade R-CNN", "ps_resnext101_32x4d", "1yCWeqSEjCawlOxMWb0GQmkjPiVMDBTqL", (44.4,)),
    ("Cascade Mask R-CNN", "ps_resnet50", "1L6Ai18CzQ_qcDzSUZEVnOVTQNR_wR9TL", (42.9, 36.9)),
    ("Cascade Mask R-CNN", "ps_resnet101", "1oB0p7HkD2MjNjj75xHYbBDNg90PxG09G", (44.6, 38.4)),
    ("Cascade Mask R-CNN", "ps_resnext101_32x4d", "1NDaDe2prI_K5Rvgg9g3x3DjWDG8i0N5V", (45.3, 38.9)),
)
# arch: top-1 and top-5 error on ImageNet (ELASTIC, Tables 2 and 8)
_ELASTIC_IMAGENET: Mapping[str, tuple[float, ...]] = {
    "resnext50": (22.23, 6.25),
    "resnext50_elastic": (21.56, 5.83),
    "resnext101": (21.18, 5.83),
    "resnext101_elastic": (20.83, 5.41),
    "dla60x": (21.92, 6.03),
    "dla60x_elastic": (21.25, 5.71),
    "dla102x": (21.5,),
    "se_resnext50_elastic": (21.38, 5.86),
    "densenet201": (22.25, 6.26),
    "densenet201_elastic": (22.07, 6.00),
}
# arch: F1 per class and overall on COCO (ELASTIC, Table 3)
_ELASTIC_COCO: Mapping[str, tuple[float, float]] = {
    "resnext50": (70.12, 74.52),
    "resnext50_elastic": (71.08, 75.37),
    "resnext101": (70.95, 75.21),
    "resnext101_elastic": (71.83, 75.93),
    "dla60x": (70.79, 75.41),
    "dla60x_elastic": (71.35, 75.77),
    "densenet201": (69.95, 74.50),
    "densenet201_elastic": (70.40, 74.99),
}
# arch: mIoU on PASCAL VOC 2012 val (ELASTIC, Table 5)
_ELASTIC_VOC: Mapping[str, float] = {
    "resnext50": 75.29,
    "resnext50_elastic": 77.70,
    "resnext101": 77.47,
    "resnext101_elastic": 78.51,
    "dla60x": 69.96,
    "dla60x_elastic": 73.59,
}
# file name, top-1 and top-5 accuracy, as timm measured them, on ImageNet
_DLA: Mapping[str, tuple[float, float]] = {
    "dla34-ba72cf86": (74.62, 92.06),
    "dla46_c-2bfd52c3": (64.87, 86.29),
    "dla46x_c-d761bae7": (65.98, 86.99),
    "dla60x_c-b870c45c": (67.91, 88.42),
    "dla60-24839fc4": (77.04, 93.32),
    "dla60x-d15cacda": (78.25, 94.02),
    "dla102-d94d9790": (78.03, 93.95),
    "dla102x-ad62be81": (78.51, 94.23),
    "dla102x2-262837b6": (79.44, 94.65),
    "dla169-0914e092": (78.69, 94.33),
}
_ELASTIC_RECORDS = {
    "resnext50",
    "resnext50_elastic",
    "dla60x",
    "dla60x_elastic",
    "dla102x",
    "densenet201",
    "densenet201_elastic",
}
_ELASTIC_SEG_RECORDS = {"resnext50_elastic", "dla60x"}
_DLA_RECORDS = {"dla34", "dla60x", "dla102", "dla102x"}
_ERRORS: tuple[Metric, ...] = ("top-1 error", "top-5 error")
_F1: tuple[Metric, ...] = ("F1 per class", "F1 overall")


def _figures(metrics: tuple[Metric, ...], values: tuple[float, ...]) -> tuple[Figure, ...]:
    return tuple(Figure(metric, value) for metric, value in zip(metrics, values, strict=False))


def _psconv() -> Iterator[Entry]:
    common = dict(source="psconv", licence="MIT")
    for name, arch, drive, errors, record in _PS_BACKBONES:
        yield Entry(
            "psconv", name, "classification", "ImageNet", arch=arch, parameters=_PARAMETERS["psconv", arch],
            address=DRIVE.format(drive), figures=_figures(_ERRORS, errors), record=record, **common,
        )  # fmt: skip
    for detector, arch, drive, precisions in _PS_DETECTORS:
        yield Entry(
            "psconv", f"{detector} {arch} FPN 1x", "detection" if len(precisions) == 1 else "instance segmentation",
            "COCO", arch=arch, parameters=_PARAMETERS["psconv", arch], address=DRIVE.format(drive),
            figures=_figures(("box AP", "mask AP"), precisions), **common,
        )  # fmt: skip


def _elastic() -> Iterator[Entry]:
    for arch, errors in _ELASTIC_IMAGENET.items():
        record = f"elastic_{arch}" if arch in _ELASTIC_RECORDS else None
        yield _elastic_entry(arch, arch, "classification", "ImageNet", f"imagenet_models/{arch}.pth.tar",
                             _figures(_ERRORS, errors), record)  # fmt: skip
    for arch, scores in _ELASTIC_COCO.items():
        yield _elastic_entry(
            arch, arch, "multi-label", "COCO", f"coco_models/coco_{arch}.pth.tar", _figures(_F1, scores)
        )
    for arch, overlap in _ELASTIC_VOC.items():
        file = f"pascal_models/deeplab_{arch}_pascal_v3_original_epoch50.pth"
        record = f"elastic_{arch}_seg" if arch in _ELASTIC_SEG_RECORDS else None
        yield _elastic_entry(f"{arch}_seg", arch, "semantic segmentation", "PASCAL VOC 2012", file,
                             (Figure("mIoU", overlap),), record)  # fmt: skip


def _elastic_entry(
    arch: str,
    backbone: str,
    task: Task,
    dataset: str,
    file: str,
    figures: tuple[Figure, ...],
    record: str | None = None,
) -> Entry:
    return Entry(
        "elastic", arch, task, dataset, "elastic", arch, _PARAMETERS["elastic", backbone], f"{ELASTIC_ROOT}/{file}",
        figures=figures, measured_by="DLA's authors" if arch == "dla102x" else "authors", record=record,
    )  # fmt: skip


def _dla() -> Iterator[Entry]:
    for file, accuracies in _DLA.items():
        arch = file.split("-")[0]
        yield Entry(
            "dla", arch, "classification", "ImageNet", "dla", arch, _PARAMETERS["dla", arch], f"{DLA_ROOT}/{file}.pth",
            "BSD-3-Clause", _figures(("top-1 accuracy", "top-5 accuracy"), accuracies), "timm",
            f"dla_{arch}" if arch in _DLA_RECORDS else None, "link reported dead",
        )  # fmt: skip


def _others() -> Iterator[Entry]:
    folder = "a folder: ImageNet models and validation indices; accuracy only in figures"
    yield Entry(
        "msdnet", "MSDNet, ImageNet (PyTorch)", "classification", "ImageNet", "msdnet", "imagenet_step4",
        _PARAMETERS["msdnet", "imagenet_step4"],
        "https://www.dropbox.com/sh/7p758wfcq4wm6lf/AACU4hFtV1_4UQavexrsSs1Ba?dl=0", "MIT",
        record="msdnet_imagenet_step4", remark=f"{folder}; steps 4, 6 and 7: mmms convert recognises them",
    )  # fmt: skip
    yield Entry(
        "msdnet", "MSDNet, ImageNet (Torch7)", "classification", "ImageNet",
        address="https://www.dropbox.com/sh/elnyjl4xdi4zyas/AACxCdjV-RWYrHYfbz61FFDma?dl=0", remark=folder,
    )  # fmt: skip
    remark = "its authors publish no weights"
    yield Entry("shape_adaptor", "Shape Adaptor", licence="CC-BY-NC-SA-4.0", remark=remark)


CATALOG: tuple[Entry, ...] = (*_psconv(), *_elastic(), *_dla(), *_others())
