"""The annotation files that a config names itself: checked as those of ``--coco-dir``, and mended in copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmms_plugin.coco.findings import refuse_errors
from mmms_plugin.config.coco_dir import MENDED, uses_masks
from mmms_plugin.config.edit import coco_metrics, leaf_datasets
from mmms_plugin.data.coco_file import CocoFile, read_coco
from mmms_plugin.data.coco_objects import check_objects
from mmms_plugin.data.coco_pictures import place_pictures
from mmms_plugin.data.coco_set import WITHOUT_MASKS, all_findings


def check_config_data(config: dict[str, Any], splits: tuple[str, ...], work_dir: Path) -> list[str]:
    """Check every COCO annotation file of a config's data sets; return remarks.

    File names of pictures are followed wherever they lead, as the user's own config says so. Mended files are written
    to the work folder, and the config points to them.

    Raises: UserError if the data cannot be trained on.
    """
    severities = {} if uses_masks(config) else WITHOUT_MASKS
    files: dict[Path, CocoFile] = {}
    for split in splits:
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            path = _annotations(dataset)
            if path is not None and path not in files:
                files[path] = _read(dataset, path, severities)
    findings = list(all_findings({str(path): coco for path, coco in files.items()}))
    refuse_errors(findings, "mmms check-data --ann FILE")
    mended = {
        path: coco.write(work_dir / MENDED / f"{number}_{path.name}")
        for number, (path, coco) in enumerate(files.items())
        if coco.mended
    }
    for split in splits:
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            path = _annotations(dataset)
            if path in mended:
                folder = files[path].image_dir or Path()
                dataset.update(data_root="", ann_file=str(mended[path]), data_prefix=dict(img=f"{folder.resolve()}/"))
    for metric in coco_metrics(config):
        path = Path(metric.get("ann_file") or "").resolve()
        if path in mended:
            metric["ann_file"] = str(mended[path])
    return [f"{finding.file}: {finding.severity}: {finding.text}" for finding in findings]


def _annotations(dataset: dict[str, Any]) -> Path | None:
    path = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
    if path.suffix != ".json" or str(dataset.get("type")).rpartition(".")[2] != "CocoDataset":
        return None  # other data sets have files of their own form
    return path.resolve()


def _read(dataset: dict[str, Any], path: Path, severities: dict[str, str]) -> CocoFile:
    coco = read_coco(path, "ann_file", severities)
    prefix = dataset.get("data_prefix") or {}
    place_pictures(
        coco,
        [Path(dataset.get("data_root") or "", prefix.get("img") or prefix.get("img_path") or "")],
        follow_outside=True,
    )
    check_objects(coco)
    return coco
