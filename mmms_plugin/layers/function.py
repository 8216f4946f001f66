"""What a layer computes with its weights, kept beside them: shapes do not show it.

A PSConv has the weights of a plain convolution, whatever its dilation pattern. Loaded under another pattern they give
half of the AP, without an error. So such a layer writes its arguments into ``state_dict()._metadata``, which
``torch.save``, ``weights_only`` and mmengine's checkpoints keep, and refuses those of another function.
"""

from __future__ import annotations

from typing import Any

from torch import nn

FUNCTION = "function"  # key in a layer's metadata
SHOWN = 80  # characters of a value out of a file


class CarriesFunction(nn.Module):
    """Mixin for layers whose weights fit several functions.

    ``load_state_dict`` of torch raises a RuntimeError, whose text names the first layer, for weights of another
    function; mmengine's, which starts trainings from foreign weights, warns. Weights without metadata, and a plain
    ``dict`` of them, load as ever.
    """

    def function(self) -> dict[str, Any]:
        """Arguments that shapes do not show, as plain values."""
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
            names = [name for name in {**saved, **own} if saved.get(name) != own.get(name)]
            theirs = ", ".join(f"{name}={str(saved.get(name))[:SHOWN]}" for name in names[:5])
            ours = ", ".join(f"{name}={own.get(name)}" for name in names[:5])
            error_msgs.append(f"{prefix[:-1]}: its weights were trained with {theirs}, the layer has {ours}: {reason}")
