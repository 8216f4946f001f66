"""``--image-size``: every size in a config that pictures are brought to, scaled from the config's own to the user's."""

from __future__ import annotations

from typing import Any

from mmms_plugin.config.edit import dicts_in
from mmms_plugin.errors import UserError

# Arguments of transforms that are sizes in pixels, width first
WIDTH_FIRST = {
    "Resize": ("scale",), "RandomResize": ("scale",), "RandomChoiceResize": ("scales",), "Pad": ("size",),
    "Mosaic": ("img_scale",), "CachedMosaic": ("img_scale",), "MixUp": ("img_scale",), "CachedMixUp": ("img_scale",),
    "YOLOXMixUp": ("img_scale",), "RandomAffine": ("border",), "FixScaleResize": ("scale",),
    "RandomResizedCrop": ("scale",), "ResizeEdge": ("scale",), "CenterCrop": ("crop_size",),
}  # fmt: skip
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def parse_image_size(text: str) -> tuple[int, int]:
    """``640`` or ``1333x800`` as width and height in px.

    Raises:
        UserError: it is neither.
    """
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) >= 16 for part in parts):
        raise UserError(f"--image-size {text}: expected a side in px, at least 16, or WIDTHxHEIGHT, such as 1333x800")
    return int(parts[0]), int(parts[-1])


def set_image_size(config: dict[str, Any], size: tuple[int, int]) -> str:
    """Scale every size in pipelines and model so that the config's own picture size becomes ``size``, (width, height).

    The config's own is that of its random crop where it has one, as segmentation models do, else that of the test
    pipeline's Resize. Crops and sizes of the model are (height, width), as mmseg and mmdet take them.
    Returns what was changed, in words.

    Raises:
        UserError: the config has no picture size.
    """
    old = own_size(config)
    factors = size[0] / old[0], size[1] / old[1]
    for part in _pipeline_steps(config):
        kind = str(part["type"]).rpartition(".")[2]
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


def _pipeline_steps(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The transforms of all data sets, of test-time augmentation, and of hooks that switch pipelines; each once."""
    places = [config.get(key) for key in (*LOADERS, "tta_pipeline", "custom_hooks")]
    steps = {id(part): part for place in places for part in dicts_in(place) if "type" in part}
    return list(steps.values())


def own_size(config: dict[str, Any]) -> tuple[int, int]:
    """Width and height of a config's pictures: of its random crop, else of the test pipeline's Resize.

    Raises:
        UserError: it has neither.
    """
    steps = [
        step for step in dicts_in(config.get("train_dataloader") or config.get("test_dataloader")) if "type" in step
    ]
    crops = [step["crop_size"] for step in steps if str(step["type"]).endswith("RandomCrop")
             and "crop_size" in step and step.get("crop_type", "absolute") == "absolute"]  # fmt: skip
    if crop := next(iter(crops), None):
        return (crop, crop) if isinstance(crop, int) else (int(crop[1]), int(crop[0]))
    steps = [
        step for step in dicts_in(config.get("test_dataloader") or config.get("train_dataloader")) if "type" in step
    ]
    for name, key in (("CenterCrop", "crop_size"), ("Resize", "scale"), ("RandomResizedCrop", "scale")):
        for step in steps:
            if str(step["type"]).rpartition(".")[2] == name and step.get(key) is not None:
                side = step[key]
                return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    raise UserError("the config's pipelines have no Resize and no crop: --image-size and mmms advise need one")


def _scaled_sides(value: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """As ``_scaled`` where ratios are kept: the pair bounds the longer and the shorter side, whichever comes first."""
    if isinstance(value[0], list | tuple):
        return [_scaled_sides(item, old, new) for item in value]
    factors = max(new) / max(old), min(new) / min(old)
    return _scaled(value, factors if value[0] >= value[1] else factors[::-1])


def _scaled(value: Any, factors: tuple[float, float]) -> Any:
    """A side, a pair, or a list of pairs, scaled; negative ones too (borders of RandomAffine)."""
    if isinstance(value, int | float):
        return round(value * factors[0])
    if isinstance(value[0], list | tuple):
        return [_scaled(item, factors) for item in value]
    return tuple(round(side * factor) for side, factor in zip(value, factors, strict=True))
