"""Every config that comes with the package: loads, builds, trains a step, predicts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner

from mmms_plugin.config.edit import dicts_in, leaf_datasets
from mmms_plugin.config.files import config_names, load_config
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.train.launch import drop_initial_weights
from mmms_plugin.train.tasks import Classification, Detection, task_of

SIDE = 96  # px: large enough for every stride, small enough for dozens of detectors in minutes
DETECTORS = [f"{d}_ps_{b}_fpn_1x" for d in ("faster_rcnn", "mask_rcnn", "cascade_rcnn", "cascade_mask_rcnn")
             for b in ("r50", "r101", "x101_32x4d")]  # fmt: skip
PLAIN = ("x50", "x101", "se_x50", "densenet201", "dla60x", "dla102x")
ELASTIC = ("elastic_x50", "elastic_x101", "se_elastic_x50", "elastic_densenet201", "elastic_dla60x", "elastic_dla102x")
DETECTORS += [f"{d}_{b}_fpn_1x" for d in ("mask_rcnn", "cascade_mask_rcnn") for b in (*PLAIN, *ELASTIC)]
DETECTORS += ["mask_rcnn_elastic_dla60x_dlaup_1x", "mask_rcnn_msdnet_fpn_1x"]
SEGMENTORS = [f"deeplabv3_{b}_voc12aug" for b in ("ps_r50", "r101", "x50", "elastic_x50", "x101", "elastic_x101")]
SEGMENTORS += ["dla60x_up_voc12aug", "elastic_dla60x_up_voc12aug"]
CLASSES = dict(imagenet=1000, cifar10=10, cifar100=100, svhn=10, aircraft=100, coco_multilabel=80)
CLASSIFIERS = [name for name in config_names() if name.partition("/")[0] in CLASSES]


def is_alike(name: str) -> bool:
    """Whether a detector or segmentation model differs from one that is trained in depth alone, or in parts that two
    of these have: cascades on another backbone than PS-ResNet, plain twins of Elastic networks."""
    deeper = any(part in name for part in ("r101", "x101", "dla102x", "cascade_mask_rcnn_ps_r50_fpn_1x_published"))
    cascade = name.startswith("cascade") and "ps_r50" not in name
    plain = "elastic" not in name and any(part in name for part in ("_x50", "densenet201", "dla60x"))
    return deeper or cascade or plain


# One model of every kind, backbone and recipe is trained; the others are built and run without arithmetic.
OTHERS = [n for n in config_names() if n not in CLASSIFIERS and is_alike(n)]
TRAINED = [n for n in config_names() if n not in CLASSIFIERS + OTHERS]
TRAINED += [f"cifar10/{n}_resnext29_small" for n in ("ps", "two_path", "elastic")]
TRAINED += ["cifar10/msdnet_small", "cifar10/sa_r50_small", "cifar10/sa_r50_small_autosc"]
TRAINED += ["imagenet/ps_resnet50", "imagenet/elastic_dla60x", "imagenet/msdnet_step4", "cifar100/msdnet_budgeted"]
TRAINED += ["coco_multilabel/elastic_x50_coco"]


def test_the_published_models_are_all_there():
    names = config_names()
    assert {*DETECTORS, *SEGMENTORS, "demo/mask_rcnn_ps_r18_shapes", "nuclei/mask_rcnn_ps_r18_nuclei"} <= set(names)


@pytest.mark.parametrize("name", config_names())
def test_the_head_of_the_file_says_whose_figure_it_is(name):
    lines = config_names()[name].read_text(encoding="utf-8").splitlines()
    head = " ".join(line for line in lines[: lines.index(next(x for x in lines if not x.startswith("#")))])
    assert any(words in head.lower() for words in ("measured here", "was measured", "twin of"))


def small(config: Config) -> Config:
    """The same model on small pictures and, for speed, few proposals and detections."""
    for part in dicts_in(config._cfg_dict):
        if part.get("type") in ("Resize", "RandomResize") and part.get("scale") not in (None, (32, 32)):
            part["scale"] = (SIDE, SIDE)
        if part.get("type") == "RandomCrop" and part["crop_size"] != 32:
            part["crop_size"] = (SIDE, SIDE)
        if part.get("type") == "RandomResizedCrop":
            part["scale"] = SIDE
        if part.get("type") == "CenterCrop":
            part["crop_size"] = SIDE
        if "nms_pre" in part:
            part.update(nms_pre=50, max_per_img=20)
        elif "max_per_img" in part:
            part.update(max_per_img=5)
    drop_initial_weights(config)
    if "size" in config.model.data_preprocessor:
        config.model.data_preprocessor.size = (SIDE, SIDE)
    return config


def batch_of(loader_cfg: dict, size: int) -> dict:
    loader_cfg = copy.deepcopy(loader_cfg)
    loader_cfg.update(batch_size=size, num_workers=0, persistent_workers=False)
    return next(iter(Runner.build_dataloader(loader_cfg, seed=0)))


@pytest.mark.thorough
def test_every_classifier_builds_and_its_head_fits_its_backbone():
    """Without memory, with the paper's number of classes."""
    from mmengine.registry import MODELS

    with torch.device("meta"):
        for name in sorted(set(CLASSIFIERS) - set(TRAINED)):
            config = load_config(name).model
            channels = MODELS.build(config.backbone).out_channels
            several = config.head.type == "mmms_plugin.MultiExitHead"
            assert config.head.in_channels == (list(channels) if several else channels[-1]), name
            classes = CLASSES[name.partition("/")[0]]
            assert config.head.num_classes == config.data_preprocessor.num_classes == classes, name


@pytest.mark.thorough
@pytest.mark.parametrize("name", OTHERS)
def test_the_heads_of_the_others_fit_their_backbones(name):
    """Without memory and arithmetic."""
    from mmengine.registry import MODELS

    config = load_config(name)
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
        init_default_scope(config.default_scope)
        drop_initial_weights(config)
        model = revert_sync_batchnorm(MODELS.build(config.model)).eval()
        maps = model.extract_feat(torch.empty(1, 3, SIDE, SIDE))
    channels = [y.shape[1] for y in maps]
    if isinstance(task_of(config), Detection):
        assert set(channels) == {model.rpn_head.in_channels}
    else:
        for head in (model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])):
            assert head.in_channels == channels[head.in_index]


@pytest.mark.parametrize("name", TRAINED)
def test_trains_a_step_and_predicts(name: str, shapes: Path, tmp_path: Path):
    config = load_config(name)
    task = task_of(config)
    if isinstance(task, Classification):
        pytest.importorskip("mmpretrain")
        pytest.importorskip("torchvision")
    task.use_data(config, OwnData(next(iter(task.data_flags)), shapes, tmp_path))
    config = small(config)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        init_default_scope(config.default_scope)
        torch.manual_seed(0)
        from mmengine.registry import MODELS

        model = revert_sync_batchnorm(MODELS.build(config.model)).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        data = model.data_preprocessor(batch_of(config.train_dataloader, 2), training=True)
        losses = model.parse_losses(model(**data, mode="loss"))[0]
        losses.backward()
        optimizer.step()
        assert losses.isfinite()
        model.eval()
        with torch.no_grad():
            (sample,) = model.test_step(batch_of(config.test_dataloader, 1))
    if isinstance(task, Detection):
        count = len(sample.pred_instances.labels)
        assert sample.pred_instances.bboxes.shape == (count, 4)
        assert ("masks" in sample.pred_instances) == bool(config.model.get("roi_head", {}).get("mask_head"))
    elif isinstance(task, Classification):
        assert sample.pred_score.shape == (5,)
    else:
        assert sample.pred_sem_seg.data.shape[-2:] == sample.ori_shape
        assert sample.pred_sem_seg.data.max() < 6
    assert leaf_datasets(config.train_dataloader)
