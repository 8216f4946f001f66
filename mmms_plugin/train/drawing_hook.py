"""``mmms test --show-dir``: truth and prediction of every picture side by side, in files named as the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.errors import UserError
from mmms_plugin.registry import HOOKS
from mmms_plugin.report.drawing import Objects, Style, draw_objects, draw_segments, save_drawing, side_by_side

JPEG = (".jpg", ".jpeg")


@HOOKS.register_module()
class DrawingHook(Hook):
    """Draw what a test run predicts, boxes and instance masks or a class for each pixel, beside the truth.

    The truth is read from the data set, in the picture's own pixels, wherever the test pipeline loads annotations.

    Args:
        out_dir: folder of the drawings; below it, names are those of the pictures below their own folder.
        score: least score of an object that is drawn.
    """

    priority = "NORMAL"

    def __init__(self, out_dir: str, score: float = 0.3) -> None:
        self.out_dir, self.score = Path(out_dir), score
        self._places: dict[str, int] = {}
        self._drawn: dict[Path, str] = {}

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        self._style = Style.of(dataset.metainfo["classes"], dataset.metainfo.get("palette"))
        self._places = {str(dataset.get_data_info(i)["img_path"]): i for i in range(len(dataset))}

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        dataset = runner.test_dataloader.dataset
        for sample in outputs or ():
            path = str(sample.img_path)
            pixels = np.asarray(mmcv.imread(path, channel_order="rgb"))
            if "pred_instances" in sample:
                truth = _true_objects(dataset.get_data_info(self._places[path]), *pixels.shape[:2])
                predicted = _predicted_objects(sample.pred_instances, self.score)
                halves = (draw_objects(pixels, truth, self._style), draw_objects(pixels, predicted, self._style))
                title = f"prediction, score >= {self.score:g}"
            else:
                known = _true_segments(sample, (pixels.shape[0], pixels.shape[1]))
                predicted = np.asarray(sample.pred_sem_seg.data.cpu())[0]
                halves = (draw_segments(pixels, known, self._style), draw_segments(pixels, predicted, self._style))
                title = "prediction"
            save_drawing(side_by_side(*halves, ("truth", title)), self._file(path, dataset))

    def _file(self, picture: str, dataset: Any) -> Path:
        """The drawing of a picture; with its suffix in the name where two pictures differ by that alone."""
        path = Path(picture)
        root = Path(next(iter((getattr(dataset, "data_prefix", None) or {"": ""}).values())) or ".")
        below = path.relative_to(root) if root in path.parents else Path(path.name)
        suffix = ".jpg" if path.suffix.lower() in JPEG else ".png"
        file = self.out_dir / below.with_suffix(suffix)
        if self._drawn.setdefault(file, picture) != picture:
            file = self.out_dir / f"{below}{suffix}"
        if file.resolve() == path.resolve():
            raise UserError(f"--show-dir {self.out_dir}: {path} is one of the pictures and would be replaced")
        return file


def _predicted_objects(instances: Any, score: float) -> Objects:
    """Predicted instances of at least ``score``."""
    instances = instances[instances.scores >= score].cpu()
    boxes = np.asarray(getattr(instances.bboxes, "tensor", instances.bboxes), dtype=float).reshape(-1, 4)
    masks = list(np.asarray(instances.masks)) if "masks" in instances else None
    return Objects(boxes, np.asarray(instances.labels, dtype=int), np.asarray(instances.scores, dtype=float), masks)


def _true_objects(info: Mapping[str, Any], height: int, width: int) -> Objects:
    """A data set's own annotations of a picture, those to be ignored left out."""
    items = [item for item in info.get("instances", ()) if not item.get("ignore_flag")]
    masks = [_as_rle(item["mask"], height, width) for item in items] if all("mask" in i for i in items) else None
    labels = np.array([item["bbox_label"] for item in items], dtype=int)
    return Objects(np.array([item["bbox"] for item in items], dtype=float), labels, None, masks)


def _as_rle(mask: Any, height: int, width: int) -> Mapping[str, Any]:
    """Polygons or an RLE as a compressed RLE."""
    if isinstance(mask, list):
        return rle.merge(rle.frPyObjects(mask, height, width))
    return rle.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask


def _true_segments(sample: Any, shape: tuple[int, int]) -> np.ndarray:
    """The true class of every pixel of the picture, void where it is not known."""
    if "gt_sem_seg" not in sample:
        return np.full(shape, 255)
    known = np.asarray(sample.gt_sem_seg.data.cpu())[0]
    if known.shape == shape:
        return known
    # a pipeline that resizes after loading annotations
    return np.asarray(Image.fromarray(known.astype(np.int32)).resize(shape[::-1], Image.Resampling.NEAREST))
