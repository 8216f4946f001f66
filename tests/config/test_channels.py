"""Channels that do not fit between parts of a model are reported in the words of the config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmms_plugin.config.channels import channel_fault, channels_explained
from mmms_plugin.errors import UserError

BACKBONE, NECK = [64, 128, 256, 512], [256] * 5
FPN = dict(type="FPN", in_channels=BACKBONE, out_channels=256)
EXTRACTOR = dict(out_channels=256, featmap_strides=[4, 8, 16, 32])
FAULTS: list[tuple[dict[str, Any], list[int] | None, str]] = [
    (dict(neck=dict(FPN, in_channels=[256, 512, 1024, 2048])), None,
     "neck.in_channels is [256, 512, 1024, 2048], the backbone gives [64, 128, 256, 512]"),
    (dict(neck=dict(FPN, in_channels=(64, 128, 256))), None,
     "neck.in_channels is [64, 128, 256], the backbone gives [64, 128, 256, 512]"),
    (dict(neck=dict(in_channels=2048)), None, "neck.in_channels is 2048, the backbone gives [64"),
    (dict(neck=FPN, rpn_head=dict(in_channels=128)), NECK, "rpn_head.in_channels is 128, the neck gives 256"),
    (dict(neck=[FPN], bbox_head=dict(in_channels=(512, 256))), NECK, "bbox_head.in_channels is [512, 256], the neck"),
    (dict(neck=FPN, roi_head=dict(bbox_roi_extractor=dict(EXTRACTOR, out_channels=64))), NECK,
     "roi_head.bbox_roi_extractor.out_channels is 64, the neck gives [256, 256, 256, 256]"),
    (dict(neck=FPN, roi_head=dict(mask_roi_extractor=EXTRACTOR, mask_head=dict(in_channels=64))), NECK,
     "roi_head.mask_head.in_channels is 64, the roi_head's mask_roi_extractor gives 256"),
    (dict(decode_head=dict(in_channels=2048)), None, "decode_head.in_channels is 2048, the backbone gives 512"),
    (dict(decode_head=dict(in_channels=[64, 256], in_index=[0, 1])), None,
     "decode_head.in_channels is [64, 256], the backbone gives [64, 128]"),
    (dict(decode_head=dict(in_channels=512, in_index=4)), None, "decode_head.in_index is 4, the backbone gives 4 maps"),
    (dict(auxiliary_head=[dict(in_channels=256, in_index=2), dict(in_channels=64, in_index=1)]), None,
     "auxiliary_head.1.in_channels is 64, the backbone gives 128"),
    (dict(neck=dict(type="GlobalAveragePooling"), head=dict(in_channels=2048)), [512],
     "head.in_channels is 2048, the neck gives 512: set model.head.in_channels to that"),
]  # fmt: skip
SOUND: list[tuple[dict[str, Any], list[int] | None]] = [
    (dict(neck=FPN, rpn_head=dict(in_channels=256), roi_head=dict(
        bbox_roi_extractor=EXTRACTOR, bbox_head=[dict(in_channels=256)], mask_head=dict(in_channels=256))), NECK),
    (dict(decode_head=[dict(in_channels=512), dict(in_channels=[64, 512], in_index=(0, -1))]), None),
    (dict(neck=dict(type="Other"), head=dict(type="Unknown")), None),
    (dict(head=dict(in_channels=512), roi_head=dict(shared_head=dict())), None),
]  # fmt: skip


@pytest.mark.parametrize(("config", "neck", "words"), FAULTS)
def test_the_first_part_that_does_not_fit_is_named(config, neck, words):
    assert channel_fault(config, BACKBONE, neck).startswith(words)


@pytest.mark.parametrize(("config", "neck"), SOUND)
def test_parts_that_fit_are_not(config, neck):
    assert channel_fault(config, BACKBONE, neck) is None
    assert channel_fault(config, None, None) is None


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone, self.neck = nn.Conv2d(3, 8, 1), nn.Conv2d(width, 4, 1)


def test_only_a_run_that_fails_is_explained():
    picture, config = torch.zeros(1, 3, 4, 4), dict(neck=dict(in_channels=16))
    model = Network(16)

    def run(model: Network, config: dict[str, Any]) -> None:
        with channels_explained(model, config):
            model.neck(model.backbone(picture))

    with pytest.raises(UserError, match=r"neck\.in_channels is 16, the backbone gives 8"):
        run(model, config)
    with pytest.raises(RuntimeError, match="expected input"):  # for another reason than the config's channels
        run(model, dict(neck=dict(in_channels=8)))
    with channels_explained(Network(8), config):  # a run that works is right, whatever the config says
        pass
    run(Network(8), config)
    assert not model.backbone._forward_hooks
