"""The classifiers of MSDNet (section 4 and Appendix A of the paper; github.com/kalviny/MSDNet-PyTorch) for mmpretrain.

It works with any backbone of several outputs: each map gets its own classifier, and all are trained together. The
module imports no host; mmpretrain's ``ImageClassifier`` takes the class as its ``head``.

1. The whole remaining map is averaged, where the authors pool 2 x 2: the same at 224 and 32 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.backbones.msdnet import ConvNorm
from mmms_plugin.compat.networks import BaseModule
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig
from mmms_plugin.registry import MODELS

Samples = list[Any]  # of mmpretrain's DataSample


class ExitClassifier(nn.Module):
    """Two 3x3 layers of stride 2, average, linear layer; ``[N, C, H, W] -> [N, classes]``."""

    def __init__(self, norm_cfg: ConfigType, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        first = ConvNorm(norm_cfg, in_channels, channels, 3, stride=2)
        self.convs = nn.Sequential(first, ConvNorm(norm_cfg, channels, channels, 3, stride=2))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.convs(x).mean((2, 3)))
        return logits


class LinearClassifier(nn.Module):
    """Average and linear layer; ``[N, C, H, W] -> [N, classes]``."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@MODELS.register_module()
class MultiExitHead(BaseModule):
    """A classifier at every exit, trained by the weighted sum of their losses.

    The prediction is the last exit's; ``exit_scores`` of every sample holds the scores of all, for ``ClassMetric``.

    Args:
        num_classes: number of classes.
        in_channels: of the map at each exit.
        channels: of the classifiers' 3x3 layers (128 for CIFAR); None for those of the map (ImageNet).
        linear: exits whose classifier has no 3x3 layers, as the last of a plain network: 'none', 'last' or 'all'.
        ensemble: whether an exit answers with the mean of the scores up to it, as for a sequence of networks; each is
            still trained by its own loss.
        weights: of the losses, one for each exit; None for 1 each, as in the paper.
        multi_label: whether pictures may have any number of classes, with binary cross-entropy as the loss.
        label_smoothing: of the cross-entropy.
        norm_cfg: norm layers.
        init_cfg: None for He initialisation.

    Shape: a sequence of ``[N, in_channels[i], H, W]`` to a tuple of logits ``[N, num_classes]``.
    Raises: ValueError for a bad argument, and unless there are as many maps as exits.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        *,
        channels: int | None = None,
        linear: str = "none",
        ensemble: bool = False,
        weights: Sequence[float] | None = None,
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        norm_cfg: ConfigType = BATCH_NORM,
        init_cfg: InitConfig = None,
    ) -> None:
        super().__init__(init_cfg or [*HE_INIT, dict(type="Normal", layer="Linear", std=0.01)])
        weights = (1.0,) * len(in_channels) if weights is None else tuple(weights)
        if len(weights) != len(in_channels) or any(w < 0 for w in weights) or not any(weights):
            raise ValueError(f"weights={weights!r}: allowed are {len(in_channels)} numbers >= 0, not all 0")
        if multi_label and label_smoothing:
            raise ValueError(f"label_smoothing={label_smoothing}: allowed with multi_label is 0")
        check_choice("linear", linear, ("none", "last", "all"))
        check_choice("ensemble", ensemble, (False, True))
        self.num_classes, self.weights, self.ensemble = num_classes, weights, ensemble
        self.multi_label, self.label_smoothing = multi_label, label_smoothing
        first_linear = len(in_channels) - dict(none=0, last=1, all=len(in_channels))[linear]
        self.exits = nn.ModuleList(
            ExitClassifier(norm_cfg, width, channels or width, num_classes)
            if number < first_linear
            else LinearClassifier(width, num_classes)
            for number, width in enumerate(in_channels)
        )

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Logits ``[N, num_classes]`` of every exit.

        Args:
            feats: a map ``[N, in_channels[i], H, W]`` for each exit.
        Raises: ValueError for another number of maps.
        """
        if len(feats) != len(self.exits):
            raise ValueError(
                f"{len(feats)} maps for {len(self.exits)} exits: give the backbone as many out_indices as in_channels"
            )
        return tuple(head(x) for head, x in zip(self.exits, feats, strict=True))

    def loss(self, feats: Sequence[Tensor], data_samples: Samples, **_unused: Any) -> dict[str, Tensor]:
        """The weighted loss of every exit; mmengine sums the values whose name begins with ``loss``."""
        target = self._target(data_samples).to(feats[0].device)
        losses = {}
        for i, (logits, weight) in enumerate(zip(self(feats), self.weights, strict=True)):
            losses[f"loss_exit{i + 1}"] = weight * self._loss(logits, target)
        return losses

    def predict(self, feats: Sequence[Tensor], data_samples: Samples | None = None) -> Samples:
        """Samples with the last exit's ``pred_score`` and label, and ``exit_scores`` ``[exits, num_classes]``."""
        scores = torch.stack([self._scores(logits) for logits in self(feats)], 1)
        if self.ensemble:
            scores = scores.cumsum(1) / torch.arange(1, scores.shape[1] + 1, device=scores.device)[:, None]
        if data_samples is None:
            from mmpretrain.structures import DataSample

            data_samples = [DataSample() for _ in scores]
        for sample, score in zip(data_samples, scores, strict=True):
            sample.set_field(score, "exit_scores")
            sample.set_pred_score(score[-1])
            if self.multi_label:
                sample.set_pred_label(torch.nonzero(score[-1] > 0.5).flatten())  # logit > 0
            else:
                sample.set_pred_label(score[-1].argmax(keepdim=True))
        return data_samples

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def _target(self, data_samples: Samples) -> Tensor:
        """Labels ``[N]``; scores ``[N, num_classes]`` for several labels, and for mixed pictures (mixup)."""
        if "gt_score" in data_samples[0]:
            return torch.stack([sample.gt_score.float() for sample in data_samples])
        if not self.multi_label:
            return torch.cat([sample.gt_label for sample in data_samples])
        rows = torch.zeros(len(data_samples), self.num_classes)
        for row, sample in zip(rows, data_samples, strict=True):
            row[sample.gt_label.cpu()] = 1
        return rows
