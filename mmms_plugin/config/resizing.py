"""What a config's test pipeline makes of the sizes of pictures: ``mmms size-ap --resize CONFIG``."""

from __future__ import annotations

from typing import Any

from mmms_plugin.config.edit import class_name, dicts_in, leaf_datasets
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.resizing import Resizing, Step


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
