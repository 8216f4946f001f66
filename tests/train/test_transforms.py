"""``RandomScale``: log-uniform factors of the original size, resized by Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmms_plugin.train.transforms import RandomScale


def sample(height: int, width: int) -> dict:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return dict(img=picture, gt_seg_map=rng.integers(0, 21, (height, width), dtype=np.uint8), seg_fields=["gt_seg_map"])


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.37, 2.0])
def test_picture_and_mask_are_those_of_pillow(factor, monkeypatch):
    before = sample(30, 50)
    monkeypatch.setattr(RandomScale, "random_factor", lambda self: factor)
    after = RandomScale().transform(sample(30, 50))
    size = round(50 * factor), round(30 * factor)
    assert np.array_equal(after["img"], Image.fromarray(before["img"]).resize(size, Image.Resampling.LANCZOS))
    mask = Image.fromarray(before["gt_seg_map"]).resize(size, Image.Resampling.NEAREST)
    assert np.array_equal(after["gt_seg_map"], mask)
    assert after["img_shape"] == after["gt_seg_map"].shape == size[::-1]
    assert after["scale_factor"] == (size[0] / 50, size[1] / 30)


def test_halving_is_as_likely_as_doubling():
    np.random.seed(0)  # noqa: NPY002 - the generator that mmcv seeds
    factors = np.array([RandomScale((0.5, 2.0)).random_factor() for _ in range(2000)])
    assert 0.5 <= factors.min() < 0.51
    assert 1.96 < factors.max() <= 2
    assert np.quantile(np.log2(factors), [0.25, 0.5, 0.75]) == pytest.approx([-0.5, 0, 0.5], abs=0.06)


@pytest.mark.parametrize("scale_range", [(0, 1), (2.0, 0.5)])
def test_a_range_that_is_none_is_refused(scale_range):
    with pytest.raises(ValueError, match=r"scale_range=\(.*: must be two ascending factors above 0"):
        RandomScale(scale_range)


def test_tiny_pictures_keep_a_pixel(monkeypatch):
    monkeypatch.setattr(RandomScale, "random_factor", lambda self: 0.25)
    assert RandomScale((0.25, 1)).transform(sample(1, 3))["img"].shape == (1, 1, 3)
