"""Checks of a checkpoint against the model of a config: whether its tensors fit, and what they were trained for.

Shapes show the first, not the second. The file says what it was: ``meta.backbone`` of ``mmms convert``,
``meta.trained`` of ``mmms train``, or at least what each PSConv carries (``layers.function``). The config that mmengine
keeps in ``meta.cfg`` is Python, and is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Size, Tensor, nn

from mmms_plugin.config.edit import replace_components
from mmms_plugin.config.function import NEUTRAL, Function, differences
from mmms_plugin.errors import UserError, shown
from mmms_plugin.layers import PSConv2d
from mmms_plugin.layers.function import PLAIN_CONV, CarriesFunction
from mmms_plugin.weights.files import TRAINED, Checkpoint, read_checkpoint
from mmms_plugin.weights.mapping import compare
from mmms_plugin.weights.trusted import check_components, class_names

CONVERTED = ("backbone", "data_preprocessor")  # keys in the meta of a file of mmms convert
EASY = {"type", "neck", "head", "pipeline"}  # parts of a classifier, of which shapes show nearly everything
SHOWN = 80  # characters of a value
ADDRESS = re.compile(r"[\w.+-]{2,}:")  # https://, torchvision://, open-mmlab://, s3:; a drive has one letter


def state_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Its tensors under keys without DataParallel's prefix."""
    return {key.removeprefix("module."): value for key, value in checkpoint.state.items()}


def check_fits(
    model: nn.Module, checkpoint: Checkpoint, purpose: str, classes: tuple[str, ...] | None = None
) -> str | None:
    """Compare a checkpoint with the model that was built, and its classes with those of the data.

    For ``purpose`` 'test' and 'resume' every tensor must fit; for 'start from' heads for other classes are left out by
    the loader. Returns a line for the user where something is left out or classes have other names.
    Raises: UserError.
    """
    path, state, known = checkpoint.path, state_of(checkpoint), class_names(checkpoint.meta)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    misfit = Misfit.of(shapes, state)
    if not misfit.count:
        if known and classes and known != classes and (purpose == "start from" or sorted(known) != sorted(classes)):
            return f"{path} was trained for the classes {', '.join(known)}; the data has {', '.join(classes)}"
        return None
    if misfit.differ and not misfit.missing and not misfit.unknown and all("head" in key for key in misfit.differ):
        text = f"{misfit.describe_shape(state, shapes)}{f', there for {len(known)} classes' if known else ''}"
        if purpose == "start from":
            return f"{path}: {len(misfit.differ)} head tensors are for other classes and start fresh ({text})"
        raise UserError(
            f"checkpoint {path}: made for other classes: {text}; use the data or config it was trained with"
        )
    if purpose == "start from" and len(misfit.missing) + len(misfit.differ) <= len(shapes) // 2:
        return (
            f"{path}: {len(misfit.missing)} tensors of the model are not in it, {len(misfit.unknown)} of its own unused"
        )
    raise UserError(
        f"checkpoint {path} is not of this config's model: {misfit.describe(state, shapes)}; "
        "is it of another config or depth?"
    )


@dataclass(frozen=True)
class Misfit:
    """Keys of a model that a state dict lacks, keys that only the state dict has, and keys of another shape."""

    missing: list[str]
    unknown: list[str]
    differ: list[str]

    @classmethod
    def of(cls, shapes: Mapping[str, Size], state: Mapping[str, Tensor]) -> Misfit:
        misfits = compare(state, shapes, prefix="")
        return cls(misfits["missing"], misfits["unknown"], misfits["shape"])

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.unknown) + len(self.differ)

    def describe(self, state: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> str:
        if self.differ:
            return f"{len(self.differ)} tensors of other shape ({self.describe_shape(state, shapes)})"
        word, keys = ("missing", self.missing) if self.missing else ("unknown", self.unknown)
        return f"{len(keys)} tensors {word} (first: {keys[0]})"

    def describe_shape(self, state: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> str:
        key = self.differ[0]
        return f"{key} is {tuple(state[key].shape)}, the model's {tuple(shapes[key])}"


def start_of(path: str) -> Checkpoint:
    """The weights that training starts from: a file, or an address, of which nothing is known before it is loaded."""
    return Checkpoint(Path(path), {}) if ADDRESS.match(path) else read_checkpoint(Path(path).expanduser())


def use_components(config: dict[str, Any], checkpoint: Checkpoint) -> str | None:
    """Let a model compute as the mmdet did that a checkpoint was trained with (``meta.components``).

    Args:
        config: of the model; changed in place.
    Returns: a line for the user where something is changed.
    Raises: UserError for anything but the components of the key-map tables.
    """
    if "components" not in checkpoint.meta:
        return None
    components = check_components(checkpoint.meta["components"], f"checkpoint {checkpoint.path}: meta.components")
    replace_components(config, components)
    return f"{checkpoint.path} was trained with another mmdet: {', '.join(components)} as they were there"


def check_function(
    model: nn.Module, own: Function, checkpoint: Checkpoint, force: bool, classes: tuple[str, ...] | None = None,
    from_file: bool = False,
) -> str | None:  # fmt: skip
    """Compare what a checkpoint to be used was trained for with the model of a config, and its classes with the data's.

    Args:
        own: of the config.
        force: a difference is a line for the user, which is returned, and no error.
        classes: of the data, in their order; None if unknown.
        from_file: the config is the checkpoint's own.

    Returns: a line for the user, also where the checkpoint does not say what its model was trained with, or not all.
    Raises: UserError.
    """
    theirs = _function(checkpoint.meta)
    differ = [*_differences(model, own, checkpoint, theirs), *_order(checkpoint.meta, classes)]
    if not differ:
        return None if from_file else _untold(theirs, own, checkpoint)
    path, told = checkpoint.path, "; ".join(differ)
    text = f"checkpoint {path} was trained with {told}: shapes agree, what is computed does not"
    if force:
        return text
    raise UserError(f"{text}; use the config that it was trained with, or --force to evaluate it all the same")


def _untold(theirs: Function, own: Function, checkpoint: Checkpoint) -> str | None:
    lacking = set(own.parts) - set(theirs.parts)
    if not own.parts or theirs.complete or (theirs.parts and lacking <= NEUTRAL | EASY):
        return None
    if theirs.parts or checkpoint.functions:
        part = "its backbone was trained with" if theirs.parts else "some of its layers compute"
        return f"{checkpoint.path} says only what {part}: of all else only shapes are compared"
    return f"{checkpoint.path} does not say what it was trained with: only shapes are compared with the config"


def check_resumed(
    model: nn.Module, own: Function, checkpoint: Checkpoint, classes: tuple[str, ...] | None
) -> str | None:
    """Compare what a checkpoint to resume from was trained for with the model of a config; arguments as above.

    Returns: a line for the user where the checkpoint does not say what its model was trained with, or not all.
    Raises: UserError if it was trained for another function, or classes in another order.
    """
    theirs = _function(checkpoint.meta)
    differ = _differences(model, own, checkpoint, theirs)
    if differ := [*differ, *_order(checkpoint.meta, classes)]:
        raise UserError(
            f"--resume {checkpoint.path}: it was trained with {'; '.join(differ)}: the same training cannot go on; use "
            "its config, or start a new training from its weights in another --work-dir: "
            f"--cfg-options load_from={checkpoint.path}"
        )
    return _untold(theirs, own, checkpoint)


def check_backbone_function(model: nn.Module, own: Function, checkpoint: Checkpoint) -> None:
    """Raises: UserError if a checkpoint whose backbone is used was trained for another function of it."""
    theirs, apart = _function(checkpoint.meta), ("backbone", "data_preprocessor")
    theirs, own = (replace(side, parts={k: v for k, v in side.parts.items() if k in apart}) for side in (theirs, own))
    if differ := _differences(model, own, checkpoint, theirs):
        raise UserError(
            f"checkpoint {checkpoint.path} was trained with {'; '.join(differ)}: shapes agree, what is computed does "
            "not; use the config that it was trained with"
        )


def start_remark(model: nn.Module, own: Function, path: str, checkpoint: Checkpoint, whole: bool = False) -> str | None:
    """A line for the user where weights that training starts from were trained for another function, or may have been.

    Args:
        own: of the config.
        path: a file, or an address such as ``torchvision://resnet50``.
        checkpoint: what is there, as of ``start_of``.
        whole: heads are loaded too, as by ``load_from``, and not only the backbone.
    """
    theirs = _function(checkpoint.meta)
    differ = _differences(model, own, checkpoint, theirs, only_backbone=not whole)
    if whole and (components := checkpoint.meta.get("components")):
        names = check_components(components, f"checkpoint {path}: meta.components")
        differ += [f"{name} of another mmdet" for name in names]
    if differ:
        return f"{path} was made for {'; '.join(differ)}: not the same function"
    patterns = [layer.dilation_pattern for layer in model.modules() if isinstance(layer, PSConv2d)]
    dilated = [pattern for pattern in patterns if max(pattern) > 1]
    if not dilated or checkpoint.functions or "backbone" in theirs.parts:
        return None
    return (
        f"{path} does not say what its weights were trained for. Those of a plain ResNet, such as torchvision's, were "
        f"trained with dilation 1, this backbone has the pattern {', '.join(map(str, dilated[0]))}: a start for "
        "training, not the same function"
    )


def _function(meta: Mapping[str, Any]) -> Function:
    """What a file says that it was trained for; without parts if it says nothing."""
    if "backbone" in meta:  # of mmms convert, which knows some of the other parts
        parts = meta.get("model")
        said = {**(parts if isinstance(parts, Mapping) else {}), **{name: meta.get(name) for name in CONVERTED}}
        said = {name: part for name, part in said.items() if isinstance(name, str) and name != "type"}
    else:
        trained = meta.get(TRAINED)
        said = dict(trained) if isinstance(trained, Mapping) else {}
    return Function({name: part for name, part in said.items() if part is not None or "type" in said})


def _differences(
    model: nn.Module, own: Function, checkpoint: Checkpoint, theirs: Function, only_backbone: bool = False
) -> list[str]:
    """``NAME=VALUE, the config has VALUE`` of each difference between a file and the model of a config."""
    found = differences(theirs, own, only_backbone)
    if isinstance(theirs.parts.get("backbone"), Mapping):
        return found
    return [*_layer_differences(model, checkpoint.functions), *found]


def _layer_differences(model: nn.Module, functions: Mapping[str, Any]) -> list[str]:
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
            return [
                f"{name}.{key}={shown(theirs.get(key), SHOWN)}, the config has {shown(own.get(key), SHOWN)}"
                for key in keys
            ]
    return []


def _order(meta: Mapping[str, Any], classes: tuple[str, ...] | None) -> list[str]:
    """The same classes in another order: every label would be taken for another class."""
    known = class_names(meta)
    if not classes or known == classes or sorted(known) != sorted(classes):
        return []
    place = next(place for place in range(len(known)) if known[place] != classes[place])
    return [f"class {place} {known[place]}, the data has {classes[place]} there (the same classes in another order)"]
