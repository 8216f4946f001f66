"""What a test pipeline does to sizes, compared with what the hosts' transforms do to pictures."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmms_plugin.config.files import load_config
from mmms_plugin.config.resizing import pipeline_resizing
from mmms_plugin.errors import UserError

RESIZES = [
    ("mmdet", dict(type="Resize", scale=(333, 200), keep_ratio=True)),
    ("mmdet", dict(type="Resize", scale=(200, 333), keep_ratio=True)),
    ("mmdet", dict(type="Resize", scale=(123, 77), keep_ratio=False)),
    ("mmdet", dict(type="Resize", scale=64)),
    ("mmdet", dict(type="Resize", scale_factor=(0.37, 1.2))),
    ("mmdet", dict(type="Resize", scale_factor=0.37, keep_ratio=True)),
    ("mmdet", dict(type="FixScaleResize", scale=(333, 200), keep_ratio=True)),
    ("mmseg", dict(type="ResizeShortestEdge", scale=(90, 120), max_size=150)),
    ("mmseg", dict(type="ResizeShortestEdge", scale=61, max_size=1000)),
    ("mmseg", dict(type="ResizeToMultiple", size_divisor=32)),
    *(("mmpretrain", dict(type="ResizeEdge", scale=101, edge=edge)) for edge in ("short", "long", "width", "height")),
]


def config_of(*transforms: dict) -> Config:
    pipeline = [dict(type="LoadImageFromFile"), *transforms, dict(type="PackDetInputs")]
    return Config(dict(test_dataloader=dict(dataset=dict(type="CocoDataset", ann_file="", pipeline=pipeline))))


@pytest.mark.parametrize(("host", "transform"), RESIZES)
def test_sizes_are_those_of_the_hosts(host, transform):
    init_default_scope(host)
    module = pytest.importorskip(f"{host}.datasets.transforms")
    from mmengine.registry import TRANSFORMS

    assert module
    built = TRANSFORMS.build(dict(transform))
    sizes = np.random.default_rng(0).integers(3, 300, (25, 2))
    results = [built(dict(img=np.zeros((height, width, 3), np.uint8))) for width, height in sizes.tolist()]
    theirs = [result["img"].shape[1::-1] for result in results]
    resizing = pipeline_resizing(config_of(transform), "mine")
    assert resizing.sizes(sizes).tolist() == [list(size) for size in theirs]
    if all("scale_factor" in result for result in results):
        scales = resizing.sizes(sizes) / sizes
        np.testing.assert_allclose(scales, [result["scale_factor"] for result in results], rtol=1e-12)
    assert resizing.text == "by the test pipeline of mine"


def test_transforms_follow_each_other_and_others_change_nothing():
    resizing = pipeline_resizing(config_of(*(t for _, t in RESIZES[::-1]), dict(type="Pad", size_divisor=32)), "mine")
    assert len(resizing.steps) == len(RESIZES)
    assert pipeline_resizing(config_of(dict(type="CenterCrop", crop_size=9)), "mine").steps == ()
    assert pipeline_resizing(load_config("mask_rcnn_ps_r50_fpn_1x"), "c").steps[0].kind == "fit"


@pytest.mark.parametrize(
    "transform",
    [
        dict(type="MyResize"),
        dict(type="Resize"),
        dict(type="FixScaleResize", scale_factor=0.5, keep_ratio=True),
        dict(type="TestTimeAug", transforms=[[dict(type="Resize", scale=9)]]),
    ],
)
def test_unknown_sizes_are_one_line(transform):
    with pytest.raises(UserError, match=r"--resize mine: how its test pipeline's .* changes sizes is not known; give"):
        pipeline_resizing(config_of(transform), "mine")


def test_a_config_without_test_data_is_refused():
    with pytest.raises(UserError, match="--resize mine: the config has no test_dataloader"):
        pipeline_resizing(Config({}), "mine")
