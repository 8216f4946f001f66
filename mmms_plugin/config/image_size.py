"""The size of a config's pictures, what its test pipeline makes of other sizes, and ``--image-size``.

``--image-size`` scales every size in a config to the user's.
"""

from __future__ import annotations

from typing import Any

from mmms_plugin.config.edit import class_name, dicts_in, leaf_datasets
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.resizing import Resizing, Step

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


def pipeline_resizing(config: Any, name: str) -> Resizing:
    """What a config's test pipeline does to the sizes of pictures.

    Args:
        config: the config, of any host.
        name: of the config, for messages and reports.

    Raises:
        UserError: it has no test data, or a transform whose sizes are unknown.
    """
    datasets = leaf_datasets(config.get("test_dataloader"))
    if not datasets:
        raise UserError(f"--resize {name}: the config has no test_dataloader; give WIDTHxHEIGHT, such as 1333x800")
    steps: list[Step] = []
    for transform in datasets[0].get("pipeline") or config.get("test_pipeline") or []:
        kind = class_name(transform)
        if any("type" in part for part in dicts_in([value for key, value in transform.items() if key != "type"])):
            kind = f"{kind} with transforms inside"
        elif kind in STEPS:
            try:
                steps += STEPS[kind](transform)
                continue
            except (KeyError, TypeError, ValueError, IndexError):  # arguments that the transform would refuse too
                kind = f"{kind} with other arguments"
        if "Resize" in kind or "inside" in kind or "arguments" in kind:
            raise UserError(
                f"--resize {name}: how its test pipeline's {kind} changes sizes is not known; give WIDTHxHEIGHT, such "
                "as 1333x800"
            )
    return Resizing(tuple(steps), f"by the test pipeline of {name}" if steps else f"{name} resizes nothing")


def _pair(value: Any) -> tuple[float, float]:
    first, second = (value, value) if isinstance(value, int | float) else value
    return first, second


def _resize(transform: dict[str, Any], fit: str = "fit") -> list[Step]:
    keeps = transform.get("keep_ratio", False)
    if transform.get("scale"):
        return [Step(fit if keeps else "stretch", *_pair(transform["scale"]))]
    if keeps and fit != "fit":
        raise ValueError("factors")
    return [Step("scale-fit" if keeps else "scale", *_pair(transform["scale_factor"]))]


STEPS = {
    "Resize": _resize,
    "FixScaleResize": lambda transform: _resize(transform, "fit-floor"),
    "ResizeShortestEdge": lambda transform: [Step("shorter", min(_pair(transform["scale"])), transform["max_size"])],
    "ResizeEdge": lambda transform: [Step(f"edge-{transform.get('edge', 'short')}", int(transform["scale"]), 0)],
    "ResizeToMultiple": lambda transform: [Step("multiple", int(transform.get("size_divisor", 32)), 0)],
}


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
