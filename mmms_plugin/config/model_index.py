"""``model-index.yml``: the configs in OpenMMLab's form, which mim and modelindex read.

``python -m mmms_plugin.config.model_index``, in a clone, rewrites it from the facts of the configs and the papers of
``CITATION.cff``. Figures are the authors', as the head of a config cites them. It lists no weights, because the
published checkpoints need ``mmms convert`` first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmms_plugin.config.facts import Facts, read_facts
from mmms_plugin.files import write_text

ROOT = Path(__file__).resolve().parents[2]
INDEX_FILE = ROOT / "model-index.yml"
HEAD = """\
# Made by `python -m mmms_plugin.config.model_index`, from the list of `mmms configs`. Parameters and multiply-adds are
# counted; results are the authors', and were not measured with this package.
"""
DATA_SETS: Mapping[str, str] = {
    r"_1x(_published)?$": "COCO",
    r"_voc12aug$": "PASCAL VOC 2012",
    r"^aircraft/": "FGVC-Aircraft",
    r"^cifar10/": "CIFAR-10",
    r"^cifar100/": "CIFAR-100",
    r"^imagenet/": "ImageNet-1k",
    r"^svhn/": "SVHN",
}
TASKS: Mapping[str, str] = {
    "box AP": "Object Detection",
    "mask AP": "Instance Segmentation",
    "mIoU": "Semantic Segmentation",
    "top-1 error": "Image Classification",
}


def model_index(all_facts: Mapping[str, Facts], references: list[dict[str, Any]]) -> dict[str, Any]:
    """The index.

    Args:
        all_facts: of the configs, by name.
        references: of ``CITATION.cff``.
    """
    papers = {paper["abbreviation"]: dict(Title=paper["title"], URL=paper["url"]) for paper in references}
    return dict(
        Collections=[dict(Name=name, Paper=paper) for name, paper in papers.items()],
        Models=[_model(facts, papers) for facts in all_facts.values()],
    )


def _model(facts: Facts, papers: Mapping[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "Parameters": facts.params,
        "Multiply-adds": facts.macs,
        "Picture size": "{} x {}".format(*facts.size),
    }
    model: dict[str, Any] = {"Name": facts.name, "Config": f"configs/{facts.name}.py", "Metadata": metadata}
    if facts.method in papers:
        model["In Collection"] = facts.method
    figures = re.findall(rf"([\d.]+) (?:% )?({'|'.join(TASKS)})", facts.published)
    if figures:
        metadata["Source of results"] = "published by the authors, not measured with this package"
        data_set = next(name for pattern, name in DATA_SETS.items() if re.search(pattern, facts.name))
        model["Results"] = [
            {"Task": TASKS[metric], "Dataset": data_set, "Metrics": {metric: float(value)}} for value, metric in figures
        ]
    return model


def index_text() -> str:
    """Content of ``model-index.yml``."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    index = model_index(read_facts(), citation["references"])
    return HEAD + yaml.safe_dump(index, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    write_text(INDEX_FILE, index_text())
