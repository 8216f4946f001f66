"""The DeepLabV3 head of the ELASTIC paper's segmentation models (section 4.3; github.com/allenai/elastic).

Atrous spatial pyramid pooling (Chen et al., 2017): a 1x1 layer, dilated 3x3 layers and pooled features side by side, a
1x1 layer over all, a 1x1 classifier. Against mmseg's head of that name, the layer over all is 1x1, the pooled
features come last and nothing is dropped out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.aspp_head import ASPPHead as HostASPPHead
from torch import Tensor

from mmms_plugin.heads.defaults import Loss, loss_or_default
from mmms_plugin.layers.initial import InitConfig
from mmms_plugin.layers.norm import BATCH_NORM, ConfigType
from mmms_plugin.registry import MODELS


@MODELS.register_module()
class ASPPHead(HostASPPHead):  # type: ignore[misc]  # mmseg has no types
    """Decode head for mmseg; takes the last of the backbone's maps.

    Args:
        in_channels: of that map. channels: of every branch. num_classes: classes.
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
