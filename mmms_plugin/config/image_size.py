"""The size of a config's pictures, and ``--image-size``, which scales every size in a config to the user's."""

from __future__ import annotations

from typing import Any

from mmms_plugin.config.edit import class_name, dicts_in
from mmms_plugin.errors import UserError

# Arguments of transforms that are sizes in px, width first
WIDTH_FIRST = {
    "Resize": ("scale",), "RandomResize": ("scale",), "RandomChoiceResize": ("scales",), "Pad": ("size",),
    "Mosaic": ("img_scale",), "CachedMosaic": ("img_scale",), "MixUp": ("img_scale",), "CachedMixUp": ("img_scale",),
    "YOLOXMixUp": ("img_scale",), "RandomAffine": ("border",), "FixScaleResize": ("scale",),
    "RandomResizedCrop": ("scale",), "ResizeEdge": ("scale",), "CenterCrop": ("crop_size",),
}  # fmt: skip
# Parts of a config that have pipelines; a hook may switch them
WITH_PIPELINES = ("train_dataloader", "val_dataloader", "test_dataloader", "tta_pipeline", "custom_hooks")


def parse_image_size(text: str) -> tuple[int, int]:
    """Width and height in px of ``640`` or ``1333x800``.

    Raises:
        UserError: the text has neither form.
    """
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) >= 16 for part in parts):
        raise UserError(f"--image-size {text}: expected a side in px, at least 16, or WIDTHxHEIGHT, such as 1333x800")
    return int(parts[0]), int(parts[-1])


def set_image_size(config: dict[str, Any], size: tuple[int, int]) -> str:
    """Scale every size in pipelines and model from the config's ``own_size`` to ``size``, (width, height).

    Crops and sizes of the model are (height, width), as mmseg and mmdet take them.

    Returns:
        The change, in words.

    Raises:
        UserError: the config has no picture size.
    """
    old = own_size(config)
    factors = size[0] / old[0], size[1] / old[1]
    parts = [part for key in WITH_PIPELINES for part in dicts_in(config.get(key)) if "type" in part]
    for part in {id(part): part for part in parts}.values():  # pipelines may share a transform
        kind = class_name(part)
        for key in WIDTH_FIRST.get(kind, ()):
            if part.get(key) is not None and part.get("keep_ratio"):
                part[key] = _scaled_sides(part[key], old, size)
            elif part.get(key) is not None:
                part[key] = _scaled(part[key], factors)
        if kind == "RandomCrop" and part.get("crop_type", "absolute") == "absolute":
            part["crop_size"] = _scaled(part["crop_size"], factors[::-1])
    for part in dicts_in(config["model"]):
        for key in ("size", "crop_size", "stride"):
            if isinstance(part.get(key), list | tuple) and ("mode" in part or key == "size"):
                part[key] = _scaled(part[key], factors[::-1])
    return f"pictures {old[0]}x{old[1]} -> {size[0]}x{size[1]} px"


def own_size(config: dict[str, Any]) -> tuple[int, int]:
    """Width and height of a config's pictures: of its random crop, or else of the test pipeline's crop or Resize.

    Raises:
        UserError: it has none of them.
    """
    train, test = config.get("train_dataloader"), config.get("test_dataloader")
    for step in dicts_in(train or test):
        is_crop = class_name(step).endswith("RandomCrop") and step.get("crop_type", "absolute") == "absolute"
        if is_crop and (crop := step.get("crop_size")):
            return (crop, crop) if isinstance(crop, int) else (int(crop[1]), int(crop[0]))
    for name, key in (("CenterCrop", "crop_size"), ("Resize", "scale"), ("RandomResizedCrop", "scale")):
        for step in dicts_in(test or train):
            if class_name(step) == name and step.get(key) is not None:
                side = step[key]
                return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    raise UserError("the config's pipelines have no Resize and no crop: --image-size and mmms advise need one")


def _scaled_sides(value: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """``_scaled`` for kept ratios: a pair limits the longer and the shorter side, in either order."""
    if isinstance(value[0], list | tuple):
        return [_scaled_sides(item, old, new) for item in value]
    factors = max(new) / max(old), min(new) / min(old)
    return _scaled(value, factors if value[0] >= value[1] else factors[::-1])


def _scaled(value: Any, factors: tuple[float, float]) -> Any:
    """A side, a pair or a list of pairs, scaled; the borders of RandomAffine are negative."""
    if isinstance(value, int | float):
        return round(value * factors[0])
    if isinstance(value[0], list | tuple):
        return [_scaled(item, factors) for item in value]
    return tuple(round(side * factor) for side, factor in zip(value, factors, strict=True))
