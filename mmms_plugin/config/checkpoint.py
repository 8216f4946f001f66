"""Checks of a checkpoint against the model of a config: whether its tensors fit, and what they were trained for.

Shapes show the first, not the second. The file says what it was: ``meta.backbone`` of ``mmms convert``,
``meta.trained`` of ``mmms train``, or at least what each PSConv carries (``layers.function``). The config that mmengine
keeps in ``meta.cfg`` is Python, and is not looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmms_plugin.config.edit import replace_components
from mmms_plugin.errors import UserError, printable
from mmms_plugin.layers import PSConv2d
from mmms_plugin.layers.function import PLAIN_CONV, CarriesFunction
from mmms_plugin.layers.shape_adaptor import ShapeAdaptor
from mmms_plugin.weights.files import Checkpoint, plain_dict, read_checkpoint
from mmms_plugin.weights.mapping import compare
from mmms_plugin.weights.trusted import check_components, class_names

# Arguments of a backbone that do not change what its weights compute.
NEUTRAL = ("type", "init_cfg", "pretrained", "frozen_stages", "norm_eval", "with_cp", "norm_cfg", "zero_init_residual",
           "out_indices", "_scope_", "fixed_shape")  # fmt: skip
# Those that fit a backbone to a task: weights that training starts from may have been trained with others.
FREE = ("strides", "dilations", "multi_grid", "ceil_mode", "contract_dilation", "output", "resize_outputs")
PIXELS = ("mean", "std", "bgr_to_rgb", "rgb_to_bgr")
LATTICE = ("dilation_pattern", "channel_order", "axes", "extra_dilation1")  # of PSConv2d
PLAIN_FAMILY = ("ResNet", "ResNeXt", "PSResNet")
TRAINED = "trained"  # key in the meta of a checkpoint
SHOWN = 80  # characters of a value
MISSING = object()
UNKNOWN = object()  # stands for a value that is not plain


def read_state_dict(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and ``meta`` of a checkpoint, read without running any code in it.

    Raises: UserError if it is missing, unreadable or holds anything but tensors and plain data.
    """
    checkpoint = read_checkpoint(path)
    return {key.removeprefix("module."): value for key, value in checkpoint.state.items()}, checkpoint.meta


def check_fits(model: nn.Module, path: str, purpose: str, classes: tuple[str, ...] | None = None) -> str | None:
    """Compare a checkpoint with the model that was built, and its classes with those of the data.

    For ``purpose`` 'test' and 'resume' every tensor must fit; for 'start from' heads for other classes are left out by
    the loader. Returns a line for the user where something is left out or classes have other names.
    Raises: UserError.
    """
    state, meta = read_state_dict(path)
    misfit = _Misfit.of(model, state)
    known = class_names(meta)
    if misfit.nothing:
        if known and classes and known != classes:
            return f"{path} was trained for the classes {', '.join(known)}; the data has {', '.join(classes)}"
        return None
    if misfit.differ and not misfit.missing and not misfit.unknown and all("head" in key for key in misfit.differ):
        text = f"{misfit.describe_shape(state, model)}{f', there for {len(known)} classes' if known else ''}"
        if purpose == "start from":
            return f"{path}: {len(misfit.differ)} head tensors are for other classes and start fresh ({text})"
        raise UserError(
            f"checkpoint {path}: made for other classes: {text}; use the data or config it was trained with"
        )
    if purpose == "start from" and len(misfit.missing) + len(misfit.differ) <= len(model.state_dict()) // 2:
        return (
            f"{path}: {len(misfit.missing)} tensors of the model are not in it, {len(misfit.unknown)} of its own unused"
        )
    raise UserError(
        f"checkpoint {path} is not of this config's model: {misfit.describe(state, model)}; "
        "is it of another config or depth?"
    )


def check_backbone_weights(backbone: nn.Module, path: str) -> str:
    """Check that a file holds all weights of a backbone (a classifier beside it is fine); return the keys' prefix.

    Weights of a plain network have no shape of a shape-adapted one: that begins as the config says, as AutoTL is meant.

    Raises: UserError.
    """
    state, _ = read_state_dict(path)
    prefix = "backbone." if any(key.startswith("backbone.") for key in state) else ""
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    misfit = _Misfit.of(backbone, state)
    shape = {f"{name}.alpha" for name, part in backbone.named_modules() if isinstance(part, ShapeAdaptor)}
    if shape <= set(misfit.missing):
        misfit = replace(misfit, missing=[key for key in misfit.missing if key not in shape])
    if misfit.missing or misfit.differ:
        raise UserError(
            f"--pretrained {path}: not the weights of this config's backbone: {misfit.describe(state, backbone)}; "
            "is it of another depth, or still in its authors' format?"
        )
    return prefix


@dataclass(frozen=True)
class _Misfit:
    """Keys of a model that a state dict lacks, keys that only the state dict has, and keys of another shape."""

    missing: list[str]
    unknown: list[str]
    differ: list[str]

    @classmethod
    def of(cls, model: nn.Module, state: Mapping[str, Tensor]) -> _Misfit:
        misfits = compare(state, {key: value.shape for key, value in model.state_dict().items()}, prefix="")
        return cls(misfits["missing"], misfits["unknown"], misfits["shape"])

    @property
    def nothing(self) -> bool:
        return not (self.missing or self.unknown or self.differ)

    def describe(self, state: Mapping[str, Tensor], model: nn.Module) -> str:
        if self.differ:
            return f"{len(self.differ)} tensors of other shape ({self.describe_shape(state, model)})"
        word, keys = ("missing", self.missing) if self.missing else ("unknown", self.unknown)
        return f"{len(keys)} tensors {word} (first: {keys[0]})"

    def describe_shape(self, state: Mapping[str, Tensor], model: nn.Module) -> str:
        key = self.differ[0]
        return f"{key} is {tuple(state[key].shape)}, the model's {tuple(model.state_dict()[key].shape)}"


def use_components(config: dict[str, Any], meta: Mapping[str, Any], checkpoint: str) -> str | None:
    """Let a model compute as the mmdet did that a checkpoint was trained with (``meta.components``).

    Args:
        config: of the model; changed in place.
    Returns: a line for the user where something is changed.
    Raises: UserError for anything but the components of the key-map tables.
    """
    if "components" not in meta:
        return None
    components = check_components(meta["components"], f"checkpoint {checkpoint}: meta.components")
    replace_components(config, components)
    return f"{checkpoint} was trained with another mmdet: {', '.join(components)} as they were there"


def trained_meta(config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``meta.trained`` of a checkpoint says: a model's backbone and data preprocessor as plain values.

    Args:
        config: of the model.
    """
    backbone = {key: value for key, value in config["backbone"].items() if key not in ("init_cfg", "pretrained")}
    return plain_dict(dict(backbone=backbone, data_preprocessor=config.get("data_preprocessor")))[0]


def check_function(model: nn.Module, config: Mapping[str, Any], checkpoint: str, force: bool) -> str | None:
    """Compare what a checkpoint to be tested was trained for with the config's model.

    Args:
        config: of the model. force: a difference is a line for the user, which is returned, and no error.
    Raises: UserError.
    """
    differ = _differences(model, config, read_checkpoint(checkpoint), ())
    if not differ:
        return None
    text = f"checkpoint {checkpoint} was trained with {'; '.join(differ)}: shapes agree, what is computed does not"
    if not force:
        raise UserError(f"{text}; use the config that it was trained with, or --force to evaluate it all the same")
    return text


def start_remark(model: nn.Module, config: Mapping[str, Any], path: str) -> str | None:
    """A line for the user where weights that training starts from were trained for another function, or may have been.

    Args:
        config: of the model. path: a file, or an address such as ``torchvision://resnet50``.
    """
    checkpoint = read_checkpoint(path) if Path(path).is_file() else Checkpoint(Path(path), {})
    differ = _differences(model, config, checkpoint, FREE)
    if differ:
        return f"{path} was made for {'; '.join(differ)}: not the same function"
    patterns = [layer.dilation_pattern for layer in model.modules() if isinstance(layer, PSConv2d)]
    dilated = [pattern for pattern in patterns if max(pattern) > 1]
    if not dilated or checkpoint.functions or _setup(checkpoint.meta)[0] is not None:
        return None
    return (
        f"{path} does not say what its weights were trained for. Those of a plain ResNet, such as torchvision's, were "
        f"trained with dilation 1, this backbone has the pattern {', '.join(map(str, dilated[0]))}: a start for "
        "training, not the same function"
    )


def _setup(meta: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """Configs of the backbone, None if unknown, and of the data preprocessor that a file was trained with."""
    model: Any = meta if "backbone" in meta else meta.get(TRAINED)
    model = model if isinstance(model, Mapping) else {}
    backbone, pixels = model.get("backbone"), model.get("data_preprocessor")
    return backbone if isinstance(backbone, Mapping) else None, pixels if isinstance(pixels, Mapping) else {}


def _differences(
    model: nn.Module, config: Mapping[str, Any], checkpoint: Checkpoint, free: tuple[str, ...]
) -> list[str]:
    """``backbone.NAME=VALUE, the config has VALUE`` of each difference."""
    theirs, pixels = _setup(checkpoint.meta)
    own, own_pixels = config.get("backbone"), config.get("data_preprocessor") or {}
    pairs = [
        (f"data_preprocessor.{name}", pixels[name], own_pixels[name])
        for name in PIXELS
        if name in pixels and name in own_pixels
    ]
    if theirs is not None and isinstance(own, Mapping):
        pairs = [*_backbone_pairs(model, theirs, own, free), *pairs]
    elif theirs is None:
        pairs = [*_layer_pairs(model, checkpoint.functions), *pairs]
    known = [(name, *(_plain(value) for value in values)) for name, *values in pairs]
    return [
        f"{name}={_shown(value)}, the config has {_shown(other)}"
        for name, value, other in known
        if not _hides(value) and not _hides(other) and value != other
    ]


def _layer_pairs(model: nn.Module, functions: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Arguments of the first layer that computes otherwise than it did when the file was saved."""
    layers = dict(model.named_modules())
    for name, theirs in functions.items():
        layer = layers.get(name)
        if layer is None:
            continue
        own = layer.function() if isinstance(layer, CarriesFunction) else PLAIN_CONV
        keys = [key for key in own if key in theirs and theirs[key] != own[key]]
        keys = keys or [key for key in {**theirs, **own} if theirs.get(key) != own.get(key)]
        if keys:
            return [(f"{name}.{key}", theirs.get(key), own.get(key)) for key in keys]
    return []


def _backbone_pairs(
    model: nn.Module, theirs: Mapping[str, Any], own: Mapping[str, Any], free: tuple[str, ...]
) -> list[tuple[str, Any, Any]]:
    kinds = _kind(theirs), _kind(own)
    lattices = _lattice(theirs), _lattice(own)
    pairs = [(f"backbone.{n}", *(lattice[n] for lattice in lattices)) for n in LATTICE if all(n in x for x in lattices)]
    if kinds[0] != kinds[1]:  # ResNet and PSResNet are the same networks but for the lattice
        return pairs if set(kinds) <= set(PLAIN_FAMILY) else [("backbone.type", *kinds)]
    parameters = inspect.signature(type(getattr(model, "backbone", model))).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    said = (*NEUTRAL, *LATTICE, *free, *(["conv_cfg"] if pairs else []))
    names = [name for name in {**theirs, **own} if isinstance(name, str) and name not in said]
    others = [(f"backbone.{n}", *(_given(c, n, defaults) for c in (theirs, own))) for n in names]
    return pairs + [pair for pair in others if all(value is not MISSING for value in pair[1:])]


def _given(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> Any:
    """An argument, or its default; for ``elastic`` False and True are other words for 'none' and 'full'."""
    value = config.get(name, defaults.get(name, MISSING))
    return {False: "none", True: "full"}[value] if name == "elastic" and isinstance(value, bool) else value


def _lattice(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``PSConv2d`` in the 3x3 layers of a ResNet; {} if it has layers of another kind, or is none."""
    conv = config.get("conv_cfg")
    if _kind(config) not in PLAIN_FAMILY or (conv is not None and not isinstance(conv, Mapping)):
        return {}
    if conv is None:
        given: Mapping[str, Any] | None = config if _kind(config) == "PSResNet" else None
    elif _kind(conv) in ("PSConv", "Conv2d", "Conv"):
        given = conv if _kind(conv) == "PSConv" else None
    else:
        return {}
    if given is None:
        return {"dilation_pattern": [1]}
    defaults = inspect.signature(PSConv2d.__init__).parameters
    lattice = {n: _plain(defaults[n].default if given.get(n) is None else given[n]) for n in LATTICE}
    pattern = lattice["dilation_pattern"]
    return {"dilation_pattern": [1]} if isinstance(pattern, list) and set(map(str, pattern)) == {"1"} else lattice


def _kind(config: Mapping[str, Any]) -> str:
    """The class's name, without scope and module."""
    kind = config.get("type")
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return str(name).rpartition(".")[2]


def _plain(value: Any, depth: int = 0) -> Any:
    """Lists for tuples, rounded numbers; ``UNKNOWN`` for what is not plain."""
    if depth > 6:
        return UNKNOWN
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        items = {str(key): _plain(item, depth + 1) for key, item in value.items()}
        return {**items, "type": _kind(value)} if "type" in value else items
    if isinstance(value, float):
        return round(value, 2)
    return value if value is None or isinstance(value, bool | int | str) else UNKNOWN


def _hides(value: Any) -> bool:
    """Whether there is something unknown in a plain value."""
    if isinstance(value, list | dict):
        return any(_hides(item) for item in (value.values() if isinstance(value, dict) else value))
    return value is UNKNOWN


def _shown(value: Any) -> str:
    return printable(str(value), SHOWN)
