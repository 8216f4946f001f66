"""The pictures that the networks see, against torchvision's transforms of Pillow pictures: equal, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from mmms_plugin.config.files import load_config

SIZES = [(500, 375), (333, 500), (640, 427), (299, 301), (257, 1000)]  # width, height
pytest.importorskip("mmpretrain")
transforms = pytest.importorskip("torchvision.transforms")
functional = pytest.importorskip("torchvision.transforms.functional")


def pictures(folder):
    rng = np.random.default_rng(0)
    for width, height in SIZES:
        path = folder / f"{width}x{height}.png"
        small = rng.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)
        yield path


def pipeline_of(name: str, loader: str) -> Compose:
    config = load_config(name)
    init_default_scope(config.default_scope)
    steps = config[loader].dataset.pipeline
    steps[-1].pop("meta_keys", None)
    return Compose(steps)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("imagenet/elastic_x50", transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])),
        ("coco_multilabel/elastic_x50_coco", transforms.Resize((224, 224))),
    ],
)
def test_evaluation(name, published, tmp_path):
    for path in pictures(tmp_path):
        expected = functional.pil_to_tensor(published(Image.open(path)))
        result = pipeline_of(name, "test_dataloader")(dict(img_path=str(path)))["inputs"]
        assert torch.equal(result.flip(0), expected), path.name  # BGR to RGB


@pytest.mark.parametrize("name", ["imagenet/elastic_x50", "coco_multilabel/elastic_x50_coco"])
def test_training(name, tmp_path):
    """For the same crop and flip, which the two draw at random in different ways."""
    pipeline = pipeline_of(name, "train_dataloader")
    cropping = pipeline.transforms[1]
    for path in pictures(tmp_path):
        picture = Image.open(path)
        np.random.seed(1)  # noqa: NPY002 - the generator of the crop
        top, left, height, width = cropping.rand_crop_params(np.asarray(picture))
        np.random.seed(1)  # noqa: NPY002
        result = pipeline(dict(img_path=str(path)))["inputs"].flip(0)
        expected = functional.pil_to_tensor(functional.resized_crop(picture, top, left, height, width, (224, 224)))
        assert torch.equal(result, expected) or torch.equal(result, expected.flip(2)), path.name
