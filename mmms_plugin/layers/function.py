"""What a layer computes with its weights, kept beside them, since shapes do not show it.

A PSConv has the weights of a plain convolution, whatever its dilation pattern. Under another pattern they load without
an error and give half of the AP. So such a layer writes its arguments into ``state_dict()._metadata``, which
``torch.save``, ``weights_only`` and mmengine's checkpoints keep, and refuses those of another function.

``PSConv2d``, its variants and ``ElasticConv2d`` do so: hosts take them as ``conv_cfg``, in networks that keep no record
of it. Other layers do not. Whether ``Elastic`` lowers the resolution depends on the stride of its block, which a
segmentation model changes on purpose. The modes of Shape Adaptor differ in their keys (each adaptor has an ``alpha``),
and weights of the human design may start any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmms_plugin.errors import shown

FUNCTION = "function"  # key in a layer's metadata
PLAIN_CONV: Mapping[str, Any] = dict(dilation_pattern=[1])  # what a plain convolution computes


class CarriesFunction(nn.Module):
    """Mixin for layers whose weights fit several functions.

    For weights of another function torch's ``load_state_dict`` raises a RuntimeError that names the first such layer;
    mmengine's, which starts trainings from foreign weights, warns. Weights without metadata, such as a plain ``dict``
    of them, load without a check.
    """

    def function(self) -> dict[str, Any]:
        """Arguments that shapes do not show, as plain values; ``PLAIN_CONV`` where it is a plain convolution."""
        raise NotImplementedError

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", {})
        metadata.setdefault(prefix[:-1], {})[FUNCTION] = self.function()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        saved, own = local_metadata.get(FUNCTION), self.function()
        reason = "the shapes agree, the functions differ"
        if isinstance(saved, dict) and saved != own and not any(reason in text for text in error_msgs):
            names = [name for name in {**saved, **own} if saved.get(name) != own.get(name)][:5]
            theirs, ours = (
                ", ".join(f"{name}={shown(function[name])}" for name in names if name in function) or "nothing"
                for function in (saved, own)
            )
            error_msgs.append(f"{prefix[:-1]}: its weights were trained with {theirs}, the layer has {ours}: {reason}")
