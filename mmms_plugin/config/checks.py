"""Checks before training starts: config, data set and checkpoint that do not fit each other, one line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmms_plugin.config.edit import class_count_owners, leaf_datasets
from mmms_plugin.errors import UserError
from mmms_plugin.layers.shape_adaptor import ShapeAdaptor
from mmms_plugin.weights.files import read_checkpoint
from mmms_plugin.weights.mapping import compare
from mmms_plugin.weights.trusted import class_names


def check_datasets(config: dict[str, Any], splits: tuple[str, ...]) -> None:
    """Check that the annotation files exist and that their classes are those of the config.

    Raises: UserError.
    """
    for split in splits:
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            path = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
            if dataset.get("ann_file") and not path.is_file():
                option = "--coco-dir DIR" if path.suffix == ".json" else "--voc-dir DIR"
                raise UserError(f"{split} data: {path} does not exist; give {option} to use data of your own")
            folder = Path(dataset.get("data_root") or "", _prefix(dataset))
            if not dataset.get("ann_file") and not folder.is_dir():
                raise UserError(f"{split} data: {folder} does not exist; give --image-dir DIR to use data of your own")
            if path.suffix == ".json" and not str(dataset.get("type")).endswith("MultiLabelDataset"):
                _check_categories(config, dataset, path)


def _prefix(dataset: dict[str, Any]) -> str:
    prefix = dataset.get("data_prefix") or ""
    return prefix if isinstance(prefix, str) else next(iter(prefix.values()), "")


def _check_categories(config: dict[str, Any], dataset: dict[str, Any], path: Path) -> None:
    classes = (dataset.get("metainfo") or {}).get("classes")
    counts = sorted({part["num_classes"] for part in class_count_owners(config["model"])})
    if classes is not None:
        if counts and counts != [len(classes)]:
            raise UserError(
                f"the config's num_classes is {_either(counts)}, its data set names {len(classes)} classes: "
                f"set num_classes={len(classes)} in every head, or give --coco-dir DIR, which does"
            )
        return
    names = {category["name"] for category in json.loads(path.read_text(encoding="utf-8"))["categories"]}
    if counts and counts != [len(names)]:
        raise UserError(
            f"{path} has {len(names)} categories, the config's num_classes is {_either(counts)}: "
            "give --coco-dir DIR, which takes the classes from the data"
        )


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
        found = compare(state, {key: value.shape for key, value in model.state_dict().items()}, prefix="")
        return cls(found["missing"], found["unknown"], found["shape"])

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


def _either(counts: list[int]) -> str:
    return " and ".join(map(str, counts))
