"""Facts about configs: task, method, size of pictures, cost, and published figures.

``mmms configs`` lists them from ``facts.json``, so that it answers at once, without torch.
``python -m mmms_plugin.config.facts [--all]`` rewrites that file: it measures new configs, with --all every config.
Models are built on the meta device, without memory and arithmetic. Classifiers need mmpretrain and torchvision.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.edit import dicts_in
from mmms_plugin.config.files import config_names, load_config
from mmms_plugin.config.image_size import own_size
from mmms_plugin.files import write_text

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

FACTS_FILE = Path(__file__).with_name("facts.json")
DETECTION = ("object detection", "instance segmentation")
DIVISOR = 32  # detectors pad their pictures to multiples of it
FIGURES = re.compile(r"\b(?:gives?|reports?) ((?:[\d.]+ (?:box AP|mask AP|mIoU)(?:, | and )?)+)")
TOP_1 = re.compile(r"\btop-1 (?:/ top-5 )?error (?:of )?([\d.]*\d)")


@dataclass(frozen=True)
class Facts:
    """What ``mmms configs`` lists about a config.

    Attributes:
        name: as ``mmms train`` takes it.
        task: 'object detection', 'instance segmentation', 'semantic segmentation' or 'classification'.
        method: 'PSConv', 'ELASTIC', ..., or 'plain' for a twin without the method.
        params: number of parameters of the whole model, with the config's own number of classes.
        macs: multiply-adds for one picture of ``size``, by backbone and neck of a detector, by the whole of others.
        size: height and width of the picture in px.
        published: figures that the head of the file cites, '' if none.
    """

    name: str
    task: str
    method: str
    params: int
    macs: int
    size: tuple[int, int]
    published: str


def read_facts() -> dict[str, Facts]:
    """The measured list, by the names of the configs."""
    entries = json.loads(FACTS_FILE.read_text(encoding="utf-8"))
    return {entry["name"]: Facts(**{**entry, "size": tuple(entry["size"])}) for entry in entries}


def task_name(model: Mapping[str, Any]) -> str:
    """The task of a model's config, as ``Facts`` names it."""
    if "decode_head" in model:
        return "semantic segmentation"
    if any("mask_head" in part for part in dicts_in(model)):
        return "instance segmentation"
    return "classification" if model["type"].endswith("ImageClassifier") else "object detection"


def method_name(model: Mapping[str, Any]) -> str:
    """The method whose layers a model's backbone has; 'plain' if it has none."""
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
    """Height and width in px of a picture of the config's own size, as the network gets it."""
    width, height = own_size(config)
    divisor = DIVISOR if task_name(config.model) in DETECTION else 1
    return divisor * math.ceil(height / divisor), divisor * math.ceil(width / divisor)


def published_figures(name: str) -> str:
    """Figures cited in the comment at the head of a config, such as '39.4 box AP and 35.6 mask AP'; '' if none."""
    lines = config_names()[name].read_text(encoding="utf-8").splitlines()
    head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    if match := FIGURES.search(head):
        return match.group(1).rstrip(", ")
    match = TOP_1.search(head)
    return f"{match.group(1)} % top-1 error" if match else ""


def as_counted(model: nn.Module, task: str) -> nn.Module:
    """Let the forward pass of a model be the part that ``Facts.macs`` counts; returns the model."""
    forward: Any = model.extract_feat if task in DETECTION else partial(model.forward, mode="tensor")
    model.forward = forward
    return model


def facts_of(name: str) -> Facts:
    """Build a config's model and measure it."""
    import torch
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, DefaultScope

    from mmms_plugin.registry import use_scope
    from mmms_plugin.scale.flops import count

    config = load_config(name)
    task, size = task_name(config.model), picture_size(config)
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
        use_scope(config.default_scope)
        model = revert_sync_batchnorm(MODELS.build(config.model))
        cost = count(as_counted(model, task), torch.empty(1, 3, *size))
    return Facts(name, task, method_name(config.model), cost.params, cost.macs, size, published_figures(name))


def measure_all(again: bool) -> None:
    """Rewrite the list that comes with the package; ``again`` also measures the configs that it has."""
    from rich.progress import track

    measured = {} if again else read_facts()
    entries = []
    for name in track(config_names(), "measuring"):
        facts = measured.get(name) or facts_of(name)
        entries.append({**asdict(facts), "published": published_figures(name)})
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    write_text(FACTS_FILE, f"[\n{lines}\n]\n")


if __name__ == "__main__":
    measure_all("--all" in sys.argv)
