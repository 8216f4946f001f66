"""Every checkpoint of the four methods that its authors name in public: where, under which licence, how good.

Addresses and figures are the authors' own, copied from their README or paper and not fetched: nothing here was
downloaded, so every entry is unverified. ``record`` names a golden record of the same architecture in this project's
tests, made by the authors' code: there, keys, shapes and outputs were checked with generated weights.

Named by their authors, but without an address of their own: PS-ResNeXt-50 32x4d, SE-PS-ResNets (PSConv); SE-ResNeXt50,
DLA-X102+Elastic, ResNeXt50x2+Elastic, sElastic (ELASTIC); all of Shape Adaptor. DLA's README no longer names any; the
addresses are those that timm's model cards keep, whose accuracy timm measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DRIVE = "https://drive.google.com/file/d/{}/view?usp=sharing"
ELASTIC_ROOT = "http://ai2-vision.s3.amazonaws.com/elastic"
DLA_ROOT = "http://dl.yf.io/dla/models/imagenet"


@dataclass(frozen=True)
class Entry:
    """One published checkpoint.

    Attributes:
        method: psconv, elastic, dla, shape_adaptor, msdnet. source, arch: for ``mmms convert``, '' where there is no
            table yet. task: what it was trained for.
        address: as published, '' where none is. licence: SPDX name of the repository's licence, '' where it has none.
        accuracy: as published, with the metric's name. record: golden record of the architecture, '' for none.
        remark: anything else.
    """

    method: str
    name: str
    source: str
    arch: str
    task: str
    address: str
    licence: str
    accuracy: str
    record: str = ""
    remark: str = ""

    @property
    def status(self) -> str:
        """Whether it could be checked: the file itself never."""
        return "unverified; layout and outputs of the architecture checked" if self.record else "unverified"


# name, arch, Google Drive id, top-1 / top-5 error (PSConv paper, Table 1), golden record
_PS_BACKBONES = (
    ("PS-ResNet-50", "ps_resnet50", "155pB1vci62zQV6AmY4MsCw5zLL0qYmG4", "21.126 / 5.724", "psconv_ps_resnet50"),
    ("PS-ResNet-101", "ps_resnet101", "15kgctzliEguQHihJoNeG65Vld9DGEITV", "19.954 / 5.052", ""),
    ("PS-ResNeXt-101 32x4d", "ps_resnext101_32x4d", "1dbttT3PvILRQvA9f0nKCLvQNg1a2QsVD", "19.498 / 4.724", ""),
)
# detector, arch, Google Drive id, box AP (and mask AP) on COCO val2017 (README of github.com/d-li14/PSConv)
_PS_DETECTORS = (
    ("Faster R-CNN", "ps_resnet50", "1sXHMMCWD9PS73gBRw-C5KoorjzFCfKkA", "38.4"),
    ("Faster R-CNN", "ps_resnet101", "1NV2dPYBb8lnDS75we0u-qHnPP_pfI6DG", "40.9"),
    ("Faster R-CNN", "ps_resnext101_32x4d", "1Hct7d_OrVMP2LZmgMu0DncY1NpCpS_E2", "41.3"),
    ("Mask R-CNN", "ps_resnet50", "1cuXnMNQbv_B3nKEWnstbOJRPdMRu9twn", "39.4 / 35.6"),
    ("Mask R-CNN", "ps_resnet101", "1U5G4uyb5DM-1NS06qOEzCVyEAaDxcvRL", "41.6 / 37.4"),
    ("Mask R-CNN", "ps_resnext101_32x4d", "1B0GV_PeXDz4_O0iM57GbWSUBXwExZdAs", "42.4 / 38.0"),
    ("Cascade R-CNN", "ps_resnet50", "13i8U-QOpFBhIUndqgYjpH6sD5ram6LFP", "41.9"),
    ("Cascade R-CNN", "ps_resnet101", "1bOWvZfwttuiAjNZhOJin_afji4X1P5Vx", "43.8"),
    ("Cascade R-CNN", "ps_resnext101_32x4d", "1yCWeqSEjCawlOxMWb0GQmkjPiVMDBTqL", "44.4"),
    ("Cascade Mask R-CNN", "ps_resnet50", "1L6Ai18CzQ_qcDzSUZEVnOVTQNR_wR9TL", "42.9 / 36.9"),
    ("Cascade Mask R-CNN", "ps_resnet101", "1oB0p7HkD2MjNjj75xHYbBDNg90PxG09G", "44.6 / 38.4"),
    ("Cascade Mask R-CNN", "ps_resnext101_32x4d", "1NDaDe2prI_K5Rvgg9g3x3DjWDG8i0N5V", "45.3 / 38.9"),
)
# arch: top-1 / top-5 error on ImageNet (ELASTIC, Tables 2 and 8), '' where the paper does not state it
_ELASTIC_IMAGENET = {
    "resnext50": "22.23 / 6.25",
    "resnext50_elastic": "21.56 / 5.83",
    "resnext101": "21.18 / 5.83",
    "resnext101_elastic": "20.83 / 5.41",
    "dla60x": "21.92 / 6.03",
    "dla60x_elastic": "21.25 / 5.71",
    "dla102x": "21.5 / - (the DLA authors' figure)",
    "se_resnext50_elastic": "21.38 / 5.86",
    "densenet201": "22.25 / 6.26",
    "densenet201_elastic": "22.07 / 6.00",
}
# arch: F1 per class / overall on COCO (ELASTIC, Table 3)
_ELASTIC_COCO = {
    "resnext50": "70.12 / 74.52",
    "resnext50_elastic": "71.08 / 75.37",
    "resnext101": "70.95 / 75.21",
    "resnext101_elastic": "71.83 / 75.93",
    "dla60x": "70.79 / 75.41",
    "dla60x_elastic": "71.35 / 75.77",
    "densenet201": "69.95 / 74.50",
    "densenet201_elastic": "70.40 / 74.99",
}
# arch: mIoU on PASCAL VOC 2012 val (ELASTIC, Table 5)
_ELASTIC_VOC = {
    "resnext50": "75.29",
    "resnext50_elastic": "77.70",
    "resnext101": "77.47",
    "resnext101_elastic": "78.51",
    "dla60x": "69.96",
    "dla60x_elastic": "73.59",
}
# file name, top-1 / top-5 accuracy on ImageNet
_DLA = {
    "dla34-ba72cf86": "74.62 / 92.06",
    "dla46_c-2bfd52c3": "64.87 / 86.29",
    "dla46x_c-d761bae7": "65.98 / 86.99",
    "dla60x_c-b870c45c": "67.91 / 88.42",
    "dla60-24839fc4": "77.04 / 93.32",
    "dla60x-d15cacda": "78.25 / 94.02",
    "dla102-d94d9790": "78.03 / 93.95",
    "dla102x-ad62be81": "78.51 / 94.23",
    "dla102x2-262837b6": "79.44 / 94.65",
    "dla169-0914e092": "78.69 / 94.33",
}
_ELASTIC_RECORDS = (
    "resnext50",
    "resnext50_elastic",
    "dla60x",
    "dla60x_elastic",
    "dla102x",
    "densenet201",
    "densenet201_elastic",
)
_ELASTIC_SEG_RECORDS = ("resnext50_elastic", "dla60x")
_DLA_RECORDS = ("dla34", "dla60x", "dla102", "dla102x")
_MSDNET_SCRIPT = "a folder: ImageNet models and validation indices"


def _psconv() -> Iterator[Entry]:
    for name, arch, drive, error, record in _PS_BACKBONES:
        figure = f"{error} % top-1 / top-5 error"
        yield Entry("psconv", name, "psconv", arch, "ImageNet", DRIVE.format(drive), "MIT", figure, record)
    for detector, arch, drive, precision in _PS_DETECTORS:
        what = "box / mask AP" if "/" in precision else "box AP"
        name = f"{detector} {arch} FPN 1x"
        yield Entry("psconv", name, "psconv", arch, "COCO", DRIVE.format(drive), "MIT", f"{precision} {what}")


def _elastic() -> Iterator[Entry]:
    groups = (
        ("ImageNet", _ELASTIC_IMAGENET, "imagenet_models/{}.pth.tar", "% top-1 / top-5 error", "", _ELASTIC_RECORDS),
        ("COCO multi-label", _ELASTIC_COCO, "coco_models/coco_{}.pth.tar", "F1 per class / overall", "", ()),
        (
            "PASCAL VOC segmentation",
            _ELASTIC_VOC,
            "pascal_models/deeplab_{}_pascal_v3_original_epoch50.pth",
            "mIoU",
            "_seg",
            _ELASTIC_SEG_RECORDS,
        ),
    )
    for task, figures, path, metric, suffix, records in groups:
        for arch, figure in figures.items():
            record = f"elastic_{arch}{suffix}" if arch in records else ""
            address = f"{ELASTIC_ROOT}/{path.format(arch)}"
            yield Entry(
                "elastic",
                f"{arch}{suffix}",
                "elastic",
                f"{arch}{suffix}",
                task,
                address,
                "",
                f"{figure} {metric}",
                record,
            )


def _dla() -> Iterator[Entry]:
    for file, figure in _DLA.items():
        arch = file.split("-")[0]
        record = f"dla_{arch}" if arch in _DLA_RECORDS else ""
        accuracy = f"{figure} % top-1 / top-5 accuracy (timm)"
        address = f"{DLA_ROOT}/{file}.pth"
        yield Entry(
            "dla", arch, "dla", arch, "ImageNet", address, "BSD-3-Clause", accuracy, record, "link reported dead"
        )


def _others() -> Iterator[Entry]:
    pytorch = "https://www.dropbox.com/sh/7p758wfcq4wm6lf/AACU4hFtV1_4UQavexrsSs1Ba?dl=0"
    torch7 = "https://www.dropbox.com/sh/elnyjl4xdi4zyas/AACxCdjV-RWYrHYfbz61FFDma?dl=0"
    name = "MSDNet, ImageNet"
    record = "msdnet_imagenet_step4"
    remark = f"{_MSDNET_SCRIPT}; steps 4, 6 and 7: mmms convert recognises them"
    shown = f"{name} (PyTorch)"
    yield Entry(
        "msdnet", shown, "msdnet", "imagenet_step4", "ImageNet", pytorch, "MIT", "as figures only", record, remark
    )
    yield Entry("msdnet", f"{name} (Torch7)", "", "", "ImageNet", torch7, "", "as figures only", "", _MSDNET_SCRIPT)
    yield Entry(
        "shape_adaptor", "Shape Adaptor", "", "", "", "", "CC-BY-NC-SA-4.0", "", "", "its authors publish no weights"
    )


CATALOG: tuple[Entry, ...] = (*_psconv(), *_elastic(), *_dla(), *_others())
