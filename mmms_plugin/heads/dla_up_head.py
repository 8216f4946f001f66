"""The classifier on top of DLA-Up (DLA, section 4.3; github.com/ucbdrive/dla, dla_up.py).

A 1x1 layer at the decoder's stride, then fixed bilinear up-sampling to the picture by a transposed convolution.

1. Logits are cropped at the right and bottom to the picture's size. github.com/allenai/elastic always cuts one row and
   column off, which is the same for its odd crops (513) only.
2. The outputs are logits; the authors' networks end in a log-softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from mmms_plugin.heads.defaults import Loss, loss_or_default
from mmms_plugin.layers.bilinear_up import bilinear_kernel
from mmms_plugin.layers.initial import InitConfig
from mmms_plugin.registry import MODELS


@MODELS.register_module()
class DLAUpHead(BaseDecodeHead):  # type: ignore[misc]  # mmseg has no types
    """Decode head for mmseg behind a ``DLAUp`` neck; takes its finest map.

    Args:
        in_channels: of that map. num_classes: classes.
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
        padded = "pad_shape" in meta and not isinstance(meta["img_shape"], torch.Size)  # a Size is a sliding window's
        height, width = meta["pad_shape" if padded else "img_shape"][:2]
        logits: Tensor = super().predict_by_feat(seg_logits[:, :, :height, :width], batch_img_metas)
        return logits
