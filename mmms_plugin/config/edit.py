"""Walking through the nested dictionaries of an OpenMMLab config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def dicts_in(node: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a nested config, outer ones first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from dicts_in(item)


def leaf_datasets(dataloader: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The data sets of a dataloader's config below wrappers such as ConcatDataset and RepeatDataset."""
    if not dataloader:
        return []
    found = [d for d in dicts_in(dataloader["dataset"]) if "type" in d and ("ann_file" in d or "data_prefix" in d)]
    return found


def class_count_owners(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a model's config that have a ``num_classes`` of their own."""
    return [part for part in dicts_in(model) if isinstance(part.get("num_classes"), int)]


def set_num_classes(model: dict[str, Any], count: int) -> None:
    """Set every ``num_classes`` in a model's config."""
    for part in class_count_owners(model):
        part["num_classes"] = count


def evaluators(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of all metrics for validation and test."""
    return [d for key in ("val_evaluator", "test_evaluator") for d in dicts_in(config.get(key)) if "type" in d]


def coco_metrics(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of those metrics that read COCO annotations and write COCO results."""
    return [m for m in evaluators(config) if "ann_file" in m or m["type"].endswith(("CocoMetric", "SizeAPMetric"))]


def replace_components(model: dict[str, Any], components: Mapping[str, Mapping[str, Any]]) -> int:
    """Give every part of a model config whose type is named the settings that go with it; returns how many."""
    parts = [part for part in dicts_in(model) if part.get("type") in components]
    for part in parts:
        part.update(components[part["type"]])
    return len(parts)
