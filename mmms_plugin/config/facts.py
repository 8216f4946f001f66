"""Measures what ``mmms configs`` lists: ``python -m mmms_plugin.config.facts [--all]`` rewrites the list.

Configs that are new are measured, all of them with --all. Models are built on the meta device: no memory and no
arithmetic. Those of classifiers need mmpretrain, and torchvision with it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from rich.progress import track
from torch import nn

from mmms_plugin.config.edit import dicts_in
from mmms_plugin.config.files import FACTS_FILE, Facts, config_names, load_config, read_facts
from mmms_plugin.files import write_text
from mmms_plugin.scale.flops import count

DIVISOR = 32  # detectors pad their pictures to it
FIGURES = re.compile(r"\b(?:gives?|reports?) ((?:[\d.]+ (?:box AP|mask AP|mIoU)(?:, | and )?)+)")
TOP_1 = re.compile(r"\btop-1 (?:/ top-5 )?error (?:of )?([\d.]*\d)")


def facts_of(name: str) -> Facts:
    """Build a config's model and measure it."""
    config = load_config(name)
    task, size = task_name(config.model), picture_size(config)
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
        init_default_scope(config.default_scope)
        model = revert_sync_batchnorm(MODELS.build(config.model))
        cost = count(CountedPart(model, task), torch.empty(1, 3, *size))
    return Facts(name, task, method_name(config.model), cost.params, cost.macs, size, published_figures(name))


def task_name(model: Mapping[str, Any]) -> str:
    """What a model's config is for."""
    if "decode_head" in model:
        return "semantic segmentation"
    if any("mask_head" in part for part in dicts_in(model)):
        return "instance segmentation"
    return "classification" if model["type"].endswith("ImageClassifier") else "object detection"


def method_name(model: Mapping[str, Any]) -> str:
    """The method whose layers a model's backbone has; 'plain' if none."""
    backbone = model["backbone"]
    kind = backbone["type"].removeprefix("mmms_plugin.")
    if kind == "PSResNet":
        return "plain" if set(backbone.get("dilation_pattern", (1, 2, 1, 4))) == {1} else "PSConv"
    if kind in ("ElasticResNeXt", "ElasticDenseNet", "DLA"):
        return "ELASTIC" if backbone.get("elastic") not in (None, False, "none") else "plain"
    if kind.startswith("ShapeAdaptor"):
        return "plain" if backbone.get("mode", "standard") == "human" else "Shape Adaptor"
    layer = (backbone.get("conv_cfg") or {}).get("type", "")
    return kind if kind == "MSDNet" else layer.removeprefix("mmms_plugin.") or "plain"


def picture_size(config: Config) -> tuple[int, int]:
    """Height and width that the test pipeline makes of a picture that fills its scale."""
    size = (config.model.get("data_preprocessor") or {}).get("size")
    if size:
        return size[0], size[1]
    steps = dicts_in(config.test_dataloader.dataset.pipeline)
    sides: list[Any] = [step.get("crop_size", step.get("scale")) for step in steps]
    side = [item for item in sides if item][-1]
    width, height = (side, side) if isinstance(side, int) else side
    if task_name(config.model) == "classification":  # which pads nothing
        return height, width
    return DIVISOR * math.ceil(height / DIVISOR), DIVISOR * math.ceil(width / DIVISOR)


def published_figures(name: str) -> str:
    """The figures that the comment at the head of a config cites, such as '39.4 box AP and 35.6 mask AP'."""
    lines = config_names()[name].read_text(encoding="utf-8").splitlines()
    head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    if match := FIGURES.search(head):
        return match.group(1).rstrip(", ")
    match = TOP_1.search(head)
    return f"{match.group(1)} % top-1 error" if match else ""


class CountedPart(nn.Module):
    """A model whose forward pass is the part that ``Facts.macs`` counts."""

    def __init__(self, model: nn.Module, task: str) -> None:
        super().__init__()
        self.model = model
        self.detects = task in ("object detection", "instance segmentation")

    def forward(self, x: torch.Tensor) -> Any:
        return cast(Any, self.model).extract_feat(x) if self.detects else self.model(x, mode="tensor")


def measure_all(again: bool) -> None:
    """Rewrite the list that comes with the package; known configs are built only if ``again``."""
    known = {} if again else read_facts()
    entries = []
    for name in track(config_names(), "measuring"):
        entry = known.get(name) or facts_of(name)
        entries.append({**asdict(entry), "published": published_figures(name)})
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    write_text(FACTS_FILE, f"[\n{lines}\n]\n")


if __name__ == "__main__":
    measure_all("--all" in sys.argv)
