"""``--augment``: presets of the hosts' transforms for the training pictures, in place of a config's own of these types.

They come after a pipeline's own steps, before the one that packs: pictures have their size then. A crop of the config's
own stays, and is the only one: batches may need its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmms_plugin.config.edit import class_name, dicts_in
from mmms_plugin.errors import UserError

Steps = tuple[dict[str, Any], ...]
# Pictures from above have no side that is up
ALL_WAYS = dict(prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"])
MIRROR = dict(prob=0.5, direction="horizontal")
MILD = dict(brightness_delta=16, contrast_range=(0.8, 1.2), saturation_range=(0.8, 1.2), hue_delta=9)
JITTER = dict(type="mmpretrain.ColorJitter", brightness=0.2, contrast=0.2, saturation=0.2)
CROP = "RandomCrop"
PRESETS = ("light", "strong", "aerial")
# Of each host, by its scope. Boxes and masks follow every step.
STEPS: dict[str, dict[str, Steps]] = {
    "mmdet": {
        "light": (dict(type="mmdet.RandomFlip", **MIRROR), dict(type="mmdet.PhotoMetricDistortion", **MILD)),
        "strong": (
            dict(type="mmdet.RandomFlip", **MIRROR),
            dict(type="mmdet.RandomCrop", crop_type="relative_range", crop_size=(0.5, 0.5), allow_negative_crop=True),
            dict(type="mmdet.PhotoMetricDistortion"),
        ),
        "aerial": (dict(type="mmdet.RandomFlip", **ALL_WAYS), dict(type="mmdet.PhotoMetricDistortion", **MILD)),
    },
    "mmseg": {
        "light": (dict(type="mmseg.RandomFlip", **MIRROR), dict(type="mmseg.PhotoMetricDistortion", **MILD)),
        "strong": (
            dict(type="mmseg.RandomFlip", **MIRROR),
            dict(type="mmseg.RandomRotate", prob=0.5, degree=10.0, seg_pad_val=255),
            dict(type="mmseg.PhotoMetricDistortion"),
        ),
        "aerial": (
            dict(type="mmseg.RandomFlip", **ALL_WAYS),
            dict(type="mmseg.RandomRotate", prob=0.5, degree=180.0, seg_pad_val=255),
            dict(type="mmseg.PhotoMetricDistortion", **MILD),
        ),
    },
    "mmpretrain": {
        "light": (dict(type="mmpretrain.RandomFlip", **MIRROR), JITTER),
        "strong": (
            dict(type="mmpretrain.RandomFlip", **MIRROR),
            dict(type="mmpretrain.RandAugment", policies="timm_increasing", num_policies=2, total_level=10,
                 magnitude_level=7, magnitude_std=0.5),
            dict(type="mmpretrain.RandomErasing", erase_prob=0.25, mode="rand", max_area_ratio=0.2),
        ),
        "aerial": (dict(type="mmpretrain.RandomFlip", **ALL_WAYS), JITTER),
    },
}  # fmt: skip


def augment(config: Mapping[str, Any], preset: str) -> str:
    """Add a preset's steps to the training pipelines; return a remark for the log.

    Raises:
        UserError: the config is of none of the three hosts, or has no pipeline that ends by packing.
    """
    scope = config.get("default_scope")
    if scope not in STEPS:
        raise UserError(f"--augment {preset}: default_scope={scope!r}; must be {', '.join(STEPS)}")
    steps = STEPS[scope][preset]
    pipelines = [part["pipeline"] for part in dicts_in(config["train_dataloader"]) if part.get("pipeline")]
    packing = [pipeline for pipeline in pipelines if class_name(pipeline[-1]).startswith("Pack")]
    if not packing:
        raise UserError(f"--augment {preset}: the training data have no pipeline whose last step packs")
    added: dict[str, None] = {}
    dropped: dict[str, None] = {}
    for pipeline in packing:
        names = [class_name(step) for step in pipeline]
        new = [dict(step) for step in steps if class_name(step) != CROP or CROP not in names]
        replaced = {class_name(step) for step in new}
        kept = [step for step, name in zip(pipeline, names, strict=True) if name not in replaced]
        pipeline[:] = [*kept[:-1], *new, kept[-1]]
        added |= dict.fromkeys(map(class_name, new))
        dropped |= dict.fromkeys(name for name in names if name in replaced)
    instead = f" in place of the config's {', '.join(dropped)}" if dropped else ""
    return f"--augment {preset}: {', '.join(added)}{instead}"
