"""Decode heads for mmseg, as published by the authors of ELASTIC and DLA.

``ASPPHead``: the DeepLabV3 head of the ELASTIC paper's segmentation models (section 4.3; github.com/allenai/elastic).
Atrous spatial pyramid pooling (Chen et al., 2017): a 1x1 layer, dilated 3x3 layers and pooled features side by side, a
1x1 layer over all, a 1x1 classifier. Unlike in mmseg's head of that name, the layer over all is 1x1, the pooled
features come last and there is no dropout.

``DLAUpHead``: the classifier on top of DLA-Up (DLA, section 4.3; github.com/ucbdrive/dla, dla_up.py). A 1x1 layer at
the decoder's stride, then fixed bilinear up-sampling to the picture by a transposed convolution.

1. Logits of ``DLAUpHead`` are cropped at the right and bottom to the picture's size. github.com/allenai/elastic always
   cuts off one row and column, which is the same only for its odd crops (513).
2. Its outputs are logits; the authors' networks end in a log-softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.aspp_head import ASPPHead as HostASPPHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from mmms_plugin.layers.common import BATCH_NORM, ConfigType, InitConfig
from mmms_plugin.layers.resampling import bilinear_kernel
from mmms_plugin.registry import MODELS

Loss = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


def loss_or_default(loss_decode: Loss) -> dict[str, Any] | list[dict[str, Any]]:
    """Configs as plain dictionaries; None gives cross-entropy averaged over the pixels that are not void."""
    if loss_decode is None:
        return dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
    return dict(loss_decode) if isinstance(loss_decode, Mapping) else [dict(loss) for loss in loss_decode]


@MODELS.register_module()
class ASPPHead(HostASPPHead):  # type: ignore[misc]  # mmseg has no types
    """Decode head for mmseg; takes the last of the backbone's maps.

    Args:
        in_channels: of that map.
        channels: of every branch.
        num_classes: classes.
        dilations: of the branches; 1 is the 1x1 layer. (6, 12, 18) are for output stride 16, twice that for 8.
        dropout_ratio, norm_cfg, in_index, ignore_index, init_cfg: as in every mmseg head.
        loss_decode: a loss or several; None is cross-entropy averaged over pixels that are not void.
        align_corners: how logits are resized to the picture.

    Shape: ``[N, in_channels, H, W]`` to logits ``[N, num_classes, H, W]``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        num_classes: int,
        dilations: Sequence[int] = (1, 6, 12, 18),
        dropout_ratio: float = 0.0,
        norm_cfg: ConfigType = BATCH_NORM,
        in_index: int = -1,
        loss_decode: Loss = None,
        ignore_index: int = 255,
        align_corners: bool = True,
        init_cfg: InitConfig = None,
    ) -> None:
        super().__init__(
            tuple(dilations),
            in_channels=in_channels,
            channels=channels,
            num_classes=num_classes,
            dropout_ratio=dropout_ratio,
            norm_cfg=dict(norm_cfg),
            in_index=in_index,
            loss_decode=loss_or_default(loss_decode),
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=init_cfg or dict(type="Normal", std=0.01, override=dict(name="conv_seg")),
        )
        self.bottleneck = ConvModule((len(dilations) + 1) * channels, channels, 1, norm_cfg=dict(norm_cfg))

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        x = self._transform_inputs(inputs)
        pooled = self.image_pool(x).expand(-1, -1, *x.shape[2:])
        features: Tensor = self.bottleneck(torch.cat((*self.aspp_modules(x), pooled), 1))
        return features


@MODELS.register_module()
class DLAUpHead(BaseDecodeHead):  # type: ignore[misc]  # mmseg has no types
    """Decode head for mmseg behind a ``DLAUp`` neck; takes its finest map.

    Args:
        in_channels: of that map.
        num_classes: classes.
        down_ratio: its stride, 2, 4, 8 or 16.
        dropout_ratio, in_index, ignore_index, init_cfg: as in every mmseg head.
        loss_decode: a loss or several; None is cross-entropy averaged over pixels that are not void.

    Shape: ``[N, in_channels, H, W]`` to logits ``[N, num_classes, down_ratio * H, down_ratio * W]``.
    Raises: ValueError for another ``down_ratio``.
    """

    up_weight: Tensor
    published_as_log_softmax = True  # read by weights.load_model

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int,
        down_ratio: int = 2,
        dropout_ratio: float = 0.0,
        in_index: int = 0,
        loss_decode: Loss = None,
        ignore_index: int = 255,
        init_cfg: InitConfig = None,
    ) -> None:
        if down_ratio not in (2, 4, 8, 16):
            raise ValueError(f"down_ratio={down_ratio!r}: allowed are 2, 4, 8, 16")
        super().__init__(
            in_channels,
            in_channels,
            num_classes=num_classes,
            dropout_ratio=dropout_ratio,
            in_index=in_index,
            loss_decode=loss_or_default(loss_decode),
            ignore_index=ignore_index,
            init_cfg=init_cfg or dict(type="Kaiming", override=dict(name="conv_seg")),
        )
        self.down_ratio = down_ratio
        kernel = bilinear_kernel(down_ratio)
        self.register_buffer("up_weight", kernel.repeat(num_classes, 1, 1, 1))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        logits = self.cls_seg(self._transform_inputs(inputs))
        ratio = self.down_ratio
        return F.conv_transpose2d(logits, self.up_weight, stride=ratio, padding=ratio // 2, groups=len(self.up_weight))

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[Any]) -> dict[str, Tensor]:
        """Losses of the logits cropped to the labels."""
        height, width = batch_data_samples[0].gt_sem_seg.shape
        losses: dict[str, Tensor] = super().loss_by_feat(seg_logits[:, :, :height, :width], batch_data_samples)
        return losses

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Logits cropped to the picture as it was fed to the network."""
        meta = batch_img_metas[0]
        padded = "pad_shape" in meta and not isinstance(
            meta["img_shape"], torch.Size
        )  # the img_shape of a sliding window is a Size
        height, width = meta["pad_shape" if padded else "img_shape"][:2]
        logits: Tensor = super().predict_by_feat(seg_logits[:, :, :height, :width], batch_img_metas)
        return logits
