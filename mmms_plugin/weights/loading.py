"""Models built from converted checkpoints, loaded strictly.

A file may only choose a class of this plugin and its plain arguments (``weights.trusted``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from mmms_plugin.errors import UserError
from mmms_plugin.weights.files import Checkpoint, read_checkpoint
from mmms_plugin.weights.mapping import BACKBONE
from mmms_plugin.weights.trusted import PARTS, build_part, check_part

if TYPE_CHECKING:
    from mmms_plugin.backbones.base import Backbone

HEAD = "head"
Output = Tensor | tuple[Tensor, ...]


class LoadedModel(nn.Module):
    """A network built from a converted checkpoint.

    Attributes:
        backbone: the backbone.
        neck, head, decode_head: what the file holds beside it, or None.
        meta: of the file; ``normalisation`` and ``data_preprocessor`` describe the input.

    Shapes: images ``[N, 3, H, W]`` to logits ``[N, classes]`` of a classifier, a tuple of them for several exits, or
    ``[N, classes, H, W]`` of a segmentation network. Networks with ``DLAUpHead`` return log-probabilities, as their
    authors' do. Without a classifier: the tuple of the backbone's feature maps.
    """

    def __init__(self, backbone: nn.Module, parts: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck, self.head, self.decode_head = (parts.get(name) for name in ("neck", HEAD, "decode_head"))
        self.meta = dict(meta)

    def forward(self, x: Tensor) -> Output:
        maps = self.backbone(x)
        if self.neck is not None:
            maps = self.neck(maps)
        if self.decode_head is not None:
            head = cast(Any, self.decode_head)
            logits = head.predict_by_feat(head(maps), [dict(img_shape=x.shape[2:])])
            return logits.log_softmax(1) if getattr(head, "published_as_log_softmax", False) else logits
        return maps if self.head is None else self.head(maps)


class PooledClassifier(nn.Module):
    """Average pooling of the last map and a linear layer: ``[N, C, H, W] -> [N, classes]``."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.fc(maps[-1].mean((2, 3)))


def load_model(path: str | Path) -> LoadedModel:
    """The model of a file of ``mmms convert``, in eval mode: the backbone and the heads that the file holds.

    A detector is refused: only its config can build its heads. ``.safetensors`` files hold a classifier only if they
    were converted with ``--part whole``.

    Raises: UserError if ``mmms convert`` did not write the file, or its metadata contradicts its tensors.
    """
    checkpoint = read_checkpoint(path)
    states = _states(checkpoint)
    backbone = _build_backbone(checkpoint, states["backbone"])
    configs = checkpoint.meta.get("model") or {}
    if not isinstance(configs, Mapping):
        raise UserError(f"checkpoint {path}: meta.model: expected a dict, found {type(configs).__name__}")
    parts = {}
    for name, state in states.items():
        where = f"checkpoint {path}: meta.model.{name}"
        if name in PARTS and name in configs:
            parts[name] = build_part(check_part(configs[name], where), where, state)
        elif name == HEAD:
            parts[name] = _classifier(path, backbone, state)
        elif name != "backbone":
            others = ", ".join(sorted(set(states) - {"backbone"})[:5])
            raise UserError(
                f"checkpoint {path}: it holds {others}, which a config builds and the file does not describe: "
                "evaluate it with mmms test CONFIG CHECKPOINT"
            )
    return LoadedModel(backbone, parts, checkpoint.meta).eval()


def load_backbone(path: str | Path, out_indices: Sequence[int] | None = None) -> Backbone:
    """The backbone of a file of ``mmms convert``; ``out_indices`` selects the stages that it returns.

    Raises: as ``load_model``.
    """
    checkpoint = read_checkpoint(path)
    return _build_backbone(checkpoint, _states(checkpoint)["backbone"], out_indices)


def _states(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """Name of each part -> its tensors, by their own keys."""
    prefix = checkpoint.meta.get("prefix", "")
    if prefix not in ("", BACKBONE):
        raise UserError(f"checkpoint {checkpoint.path}: meta.prefix: allowed are '' and {BACKBONE!r}")
    states: dict[str, dict[str, Tensor]] = {"backbone": {}}
    for key, value in checkpoint.state.items():
        part, _, name = key.partition(".") if prefix else ("backbone", "", key)
        states.setdefault(part, {})[name] = value
    if checkpoint.head:
        states.setdefault(HEAD, {}).update(checkpoint.head)
    return states


def _build_backbone(
    checkpoint: Checkpoint, state: Mapping[str, Tensor], out_indices: Sequence[int] | None = None
) -> Backbone:
    from mmms_plugin.backbones.base import Backbone

    where = f"checkpoint {checkpoint.path}: meta.backbone"
    if "backbone" not in checkpoint.meta:
        raise UserError(f"{where} is missing; convert the file first (mmms convert)")
    more = {} if out_indices is None else {"out_indices": tuple(out_indices)}
    part = check_part(checkpoint.meta["backbone"], where, **more)
    if not issubclass(part.cls, Backbone):
        raise UserError(f"{where}: {part.cls.__name__} is not a backbone")
    return cast(Backbone, build_part(part, where, state))


def _classifier(path: str | Path, backbone: Backbone, state: Mapping[str, Tensor]) -> PooledClassifier:
    weight, bias = state.get("fc.weight"), state.get("fc.bias")
    width = backbone.out_channels[-1]
    if weight is None or bias is None or len(state) != 2 or weight.dim() != 2 or weight.shape[1] != width:
        raise UserError(f"checkpoint {path}: head: expected fc.weight [classes, {width}] and fc.bias")
    if bias.shape != weight.shape[:1]:
        raise UserError(f"checkpoint {path}: head.fc.bias is {list(bias.shape)}, expected [{weight.shape[0]}]")
    head = PooledClassifier(width, weight.shape[0])
    head.load_state_dict(state)
    return head
