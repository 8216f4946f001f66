"""Segmentation heads: our configs are the authors' models, sizes of logits, the loss."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmms_plugin.config.files import load_config
from mmms_plugin.weights.loading import LoadedModel
from mmms_plugin.weights.tables import load_table


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Every argument that decides what a part computes: given or by default."""
    options = {key: value for key, value in config.items() if key != "type"}
    bound = inspect.signature(MODELS.get(config["type"])).bind(**options)
    bound.apply_defaults()
    found = {k: tuple(v) if isinstance(v, list) else v for k, v in bound.arguments.items() if k != "norm_cfg"}
    return found | dict(type=config["type"])


@pytest.mark.parametrize("arch", [a for a in load_table("elastic").archs if a.endswith("_seg") and "102x" not in a])
def test_our_configs_are_the_authors_models(arch):
    """Part by part what the records' models are built of, whose outputs tests/weights/test_records.py compares."""
    table = load_table("elastic").archs[arch]
    name = arch.removesuffix("_seg")
    elastic, name = ("elastic_", name.removesuffix("_elastic")) if name.endswith("_elastic") else ("", name)
    file = f"{elastic}{name}_up" if name.startswith("dla") else f"deeplabv3_{elastic}{name.replace('resnext', 'x')}"
    model = load_config(f"{file}_voc12aug").model
    for part, ours in dict(backbone=table.backbone, **table.parts).items():
        assert settings(model[part]) == settings(dict(ours))


@pytest.mark.parametrize("size", [(64, 48), (65, 97)])
@pytest.mark.parametrize("down_ratio", [2, 4, 8])
def test_dla_up_head_gives_logits_of_the_pictures_size(size, down_ratio):
    """At any size it crops the transposed convolution's output, and resizes nothing."""
    from mmms_plugin.heads import DLAUpHead

    head = DLAUpHead(4, num_classes=3, down_ratio=down_ratio).eval()
    x = torch.randn(1, 4, *(-(-side // down_ratio) for side in size))
    with torch.no_grad():
        raw = head([x])
        logits = head.predict_by_feat(raw, [dict(img_shape=size)])
    assert torch.equal(logits, raw[:, :, : size[0], : size[1]])
    assert logits.shape[2:] == size
    assert not any("up" in name for name, _ in head.named_parameters())


def test_dla_up_head_crops_to_the_padded_picture_or_to_a_window():
    """Of a padded picture the host cuts the padding off itself; a sliding window is as large as it says."""
    from mmms_plugin.heads import DLAUpHead

    head = DLAUpHead(4, num_classes=3, down_ratio=16).eval()
    raw = torch.randn(1, 3, 32, 48)
    for meta, size in (
        (dict(img_shape=(20, 30), pad_shape=(24, 40, 3)), (24, 40)),
        (dict(img_shape=(20, 30)), (20, 30)),
        (dict(img_shape=torch.Size((20, 30)), pad_shape=(24, 40)), (20, 30)),
    ):
        assert torch.equal(head.predict_by_feat(raw, [meta]), raw[:, :, : size[0], : size[1]])


def test_losses_of_the_heads_are_the_users_or_the_authors():
    from mmms_plugin.heads import ASPPHead, DLAUpHead

    dice, focal = dict(type="mmseg.DiceLoss"), dict(type="mmseg.FocalLoss")
    for head in (DLAUpHead, ASPPHead):
        assert head(4, num_classes=3).loss_decode.avg_non_ignore is True
        assert type(head(4, num_classes=3, loss_decode=dice).loss_decode).__name__ == "DiceLoss"
        several = head(4, num_classes=3, loss_decode=(dice, focal)).loss_decode
        assert [type(loss).__name__ for loss in several] == ["DiceLoss", "FocalLoss"]


def test_what_the_heads_are_built_of():
    import mmms_plugin.heads
    from mmms_plugin.heads import ASPPHead, DLAUpHead

    head = ASPPHead(4, 8, num_classes=3)
    dilations = [module.conv.dilation[0] for module in head.aspp_modules]
    assert (dilations, head.bottleneck.conv.in_channels, head.bottleneck.conv.kernel_size) == (
        [1, 6, 12, 18],
        40,
        (1, 1),
    )
    assert (head.in_index, head.ignore_index, head.align_corners, head.dropout, head.dropout_ratio) == (
        -1, 255, True, None, 0.0,
    )  # fmt: skip
    decoder = DLAUpHead(4, num_classes=3)
    assert (decoder.down_ratio, decoder.in_index, decoder.ignore_index, decoder.dropout) == (2, 0, 255, None)
    assert decoder.up_weight.shape == (3, 1, 4, 4)
    DLAUpHead(4, num_classes=3, down_ratio=16)
    with pytest.raises(AttributeError, match=r"module 'mmms_plugin.heads' has no attribute 'Other'"):
        mmms_plugin.heads.Other  # noqa: B018


@pytest.mark.parametrize("published_as_log_softmax", [True, False])
def test_loaded_networks_end_as_their_authors_do(published_as_log_softmax):
    """DLA's in a log-softmax, ELASTIC's in logits."""
    from mmms_plugin.heads import ASPPHead, DLAUpHead

    kind, options = (DLAUpHead, {}) if published_as_log_softmax else (ASPPHead, dict(channels=4))
    head = kind(4, num_classes=3, **options).eval()
    backbone = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Unflatten(0, (1, 1)))  # a list of one map, as it were
    with torch.no_grad():
        y = LoadedModel(backbone, {"decode_head": head}, {})(torch.randn(1, 3, 32, 48))
    assert y.shape == (1, 3, 32, 48)
    assert (y.exp().sum(1).sub(1).abs().max() < 1e-5) == published_as_log_softmax


def test_dla_up_head_refuses_another_ratio():
    from mmms_plugin.heads import DLAUpHead

    with pytest.raises(ValueError, match="down_ratio=3: allowed are 2, 4, 8, 16"):
        DLAUpHead(4, num_classes=3, down_ratio=3)


def test_the_loss_is_averaged_over_pixels_that_are_not_void():
    """As in the authors' training; mmseg's default divides by all pixels."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from mmms_plugin.heads import DLAUpHead

    torch.manual_seed(0)
    head = DLAUpHead(4, num_classes=3)
    labels = torch.full((1, 9, 9), 255)
    labels[:, :3] = 1
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
    logits = torch.randn(1, 3, 10, 10)
    loss = head.loss_by_feat(logits, [sample])["loss_ce"]
    expected = -logits.log_softmax(1)[0, 1, :3, :9].mean()
    torch.testing.assert_close(loss, expected)
