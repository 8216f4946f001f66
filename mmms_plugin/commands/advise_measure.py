"""The measurements of ``mmms advise``: a data set, a detector, and the advice that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log, prod
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmms_plugin.coco.mending import object_area
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.config.check import user_fault
from mmms_plugin.config.checkpoint import check_backbone_function
from mmms_plugin.config.detector_facts import anchors_of, has_objects, options_of, strides_of, with_changes
from mmms_plugin.config.edit import leaf_datasets
from mmms_plugin.config.files import load_config
from mmms_plugin.config.function import Function
from mmms_plugin.config.image_size import own_size
from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_layouts import BY_SPLIT, annotations_of, nothing_fits
from mmms_plugin.data.coco_set import read_split
from mmms_plugin.data.coco_usable import note_usable
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.pictures import problem_of
from mmms_plugin.errors import UserError
from mmms_plugin.registry import use_scope
from mmms_plugin.scale.advice import Advice, Geometry, Objects, Shares, advise, shares
from mmms_plugin.scale.receptive_field import ReceptiveField, measure, middles, start_afresh
from mmms_plugin.size_ap import RELATIVE, UNITS
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.train.launch import drop_initial_weights
from mmms_plugin.train.predict import build_model, picture_pipeline, with_progress
from mmms_plugin.train.tasks import Detection, task_of
from mmms_plugin.weights.files import read_checkpoint

DEFAULTS = {True: "mmdet::mask-rcnn_r50_fpn_1x_coco", False: "mmdet::faster-rcnn_r50_fpn_1x_coco"}  # with masks or not
WATCH = partial(with_progress, doing="receptive fields")
# Number of pictures that receptive fields are measured on, with random weights and with a checkpoint's. With random
# ones, single pictures differ by 2 % (standard deviation over 13 of them, ResNet-50, plain or with PSConv).
PICTURES = {True: 1, False: 4}


@dataclass(frozen=True)
class Finding:
    """The result of ``mmms advise``.

    Attributes:
        config: name of the detector's config.
        geometry: of the detector with plain layers.
        shares: of the objects that it cannot see well.
        advice: in the order of the detector's parts.
        weights: with which fields are measured, in words.
        sizes: of the shares, in words.
    """

    config: str
    geometry: Geometry
    shares: Sequence[Shares]
    advice: Sequence[Advice]
    weights: str
    sizes: str = "sizes of COCO"


@dataclass(frozen=True)
class Sizes:
    """The bins of the shares: see `mmms_plugin.size_ap.bins.resolve_bins`; ``resized`` are sizes after resizing."""

    bins: str = "coco"
    unit: str = "side"
    resized: bool = False

    @property
    def text(self) -> str:
        """For the table's header."""
        if UNITS[self.unit] == RELATIVE:
            return "shares of the picture's side"
        sizes = "sizes of COCO" if self.bins == "coco" else "own sizes"
        return f"{sizes}, after resizing" if self.resized else sizes


def training_split(own: OwnData) -> CocoFile:
    """The training data of a data set, or its validation data if it has no others.

    Raises: UserError if a detector would learn from no object.
    """
    files = annotations_of(own)
    split = next((split for split in ("train", "val") if split in files), None)
    if split is None:
        raise UserError(nothing_fits(own, files, options=BY_SPLIT))
    coco = read_split(own, split, files[split], masks=False, look=False)
    note_usable(coco, checked=False)
    if not coco.usable:
        raise UserError(f"{own.where}: {files[split]} has no usable object; mmms check-data lists what is wrong")
    return coco


def detector_config(name: str) -> Config:
    """The config of a detector, with its default scope set.

    Raises: UserError for the config of anything else.
    """
    config = load_config(name)
    if "model" not in config or not has_objects(config):
        raise UserError(f"config {name}: no model with a backbone; must be a detector")
    task = task_of(config)
    if not isinstance(task, Detection):
        raise UserError(f"config {name}: a {task.noun}; must be a detector")
    use_scope(config.get("default_scope") or "mmdet")
    return config


def find_advice(
    config: Config,
    name: str,
    coco: CocoFile,
    checkpoint: str | None,
    max_pixels: int = MAX_PIXELS,
    sizes: Sizes = Sizes(),
) -> Finding:
    """Measure a detector on a data set, and derive the advice.

    Args:
        config: of the detector.
        name: of the config.
        coco: the data set.
        checkpoint: weights for the receptive field; None for random ones.
        max_pixels: of a picture; larger ones are not measured.
        sizes: bins of the shares.
    """
    options, size = options_of(config), own_size(config)
    plain = with_changes(config, options.plain or {})
    weights = None if options.plain else checkpoint  # weights of multi-scale layers do not suit plain ones
    if checkpoint is not None:
        _check(config, checkpoint)
    objects = _objects(coco, config, size, sizes)
    bins = resolve_bins(sizes.bins, sizes.unit, objects.areas, allow_gaps=True, allow_overlaps=True).bins
    pictures = _pictures(config, coco, PICTURES[weights is None], max_pixels)
    field = measure(_backbone(plain, weights), pictures, signs=1, deepest=True, watch=WATCH)[-1]
    geometry = _geometry(plain, field, size)

    def with_multi_scale() -> float:
        changed = with_changes(config, options.multi_scale or {})
        seen = measure(_backbone(changed, weights), pictures, signs=1, theory=False, deepest=True, watch=WATCH)
        return _width(seen[-1])

    options = replace(options, multi_scale_field=with_multi_scale)
    source = "random weights" if weights is None else "the checkpoint's weights"
    if options.plain and checkpoint is not None:
        source = "random weights, since the checkpoint's are for multi-scale layers"
    parts = shares(objects, geometry, bins)
    return Finding(name, geometry, parts, advise(objects, geometry, options), source, sizes.text)


def _check(config: Config, checkpoint: str) -> None:
    """Raises: UserError if a checkpoint does not fit, or was trained for another function of the same weights."""
    saved = read_checkpoint(checkpoint)
    check_backbone_function(build_model(Config(config.to_dict()), saved, "cpu"), Function.of(config), saved)


def _geometry(config: Config, field: ReceptiveField, size: tuple[int, int]) -> Geometry:
    return Geometry(strides_of(config, field.stride), anchors_of(config), _width(field), field.theoretical, size)


def _width(field: ReceptiveField) -> float:
    """Four standard deviations, two to each side."""
    return 2 * field.two_sigma


def _backbone(config: Config, checkpoint: str | None) -> nn.Module:
    copied = Config(config.to_dict())
    if checkpoint is not None:
        model = build_model(copied, read_checkpoint(checkpoint), "cpu")
        return model.backbone  # type: ignore[return-value]
    drop_initial_weights(copied)
    return start_afresh(user_fault("backbone", lambda: MODELS.build(copied.model.backbone)))


def _pictures(config: Config, coco: CocoFile, count: int, max_pixels: int) -> list[Tensor]:
    """The middle of the squarest pictures that can be read, as the backbone gets them; a narrow one cuts fields off."""
    pipeline = picture_pipeline(config)
    preprocess: Any = user_fault("data_preprocessor", lambda: MODELS.build(dict(config.model.data_preprocessor)))
    pictures: list[Tensor] = []
    for image in sorted(coco.images, key=lambda image: abs(log(image["width"] / image["height"]))):
        path = (coco.image_dir or Path()) / image["file_name"]
        if len(pictures) < count and image["file_name"] and not problem_of(path, max_pixels):
            sample = {"img_path": str(path), "img_id": 0}
            packed = user_fault("test pipeline", lambda sample=sample: pipeline(sample))  # type: ignore[misc]
            pictures.append(preprocess(pseudo_collate([packed]), False)["inputs"][0])
    if not pictures:
        raise UserError(f"{coco.path}: none of its {len(coco.images)} pictures can be read")
    return middles(pictures)


def _objects(coco: CocoFile, config: Config, size: tuple[int, int], bins: Sizes) -> Objects:
    sizes = {image["id"]: (image.get("width") or 0, image.get("height") or 0) for image in coco.images}
    if lacking := sum(not (width and height) for width, height in sizes.values()):
        raise UserError(f"{coco.path}: {lacking} of {len(sizes)} images have no width and height")
    steps = [
        s for d in leaf_datasets(config.test_dataloader) for s in d.get("pipeline", ()) if s.get("type") == "Resize"
    ]
    keeps = all(step.get("keep_ratio") for step in steps)
    factors = {key: _factors(picture, size, keeps) for key, picture in sizes.items()}
    sides = {key: (across * down) ** 0.5 for key, (across, down) in factors.items()}
    areas, boxes, of_objects = [], [], []
    for record in coco.usable or ():
        width, height = record["bbox"][2:]
        across, down = factors[record["image_id"]]
        factor = across * down if bins.resized else 1.0
        if UNITS[bins.unit] == RELATIVE:
            factor = 1 / prod(sizes[record["image_id"]])
        areas.append(object_area(record) * factor)
        boxes.append((width * across, height * down))
        of_objects.append(sides[record["image_id"]])
    enlarged = float(np.median([*sides.values()]))
    return Objects(np.array(areas, float), np.array(boxes, float), len(sizes), enlarged, np.array(of_objects, float))


def _factors(picture: tuple[int, int], size: tuple[int, int], keeps_ratio: bool) -> tuple[float, float]:
    """The factors by which ``Resize`` changes a picture's width and height."""
    if not keeps_ratio:
        return size[0] / picture[0], size[1] / picture[1]
    factor = min(max(size) / max(picture), min(size) / min(picture))
    return factor, factor
