"""Predictions, kept and drawn: COCO JSON, PNG masks or classes, depending on the model's task.

``Results`` and its subclasses keep and draw the predictions of ``mmms predict``. ``DrawingHook`` draws truth and
prediction side by side, for ``mmms test --show-dir``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.errors import UserError, counted
from mmms_plugin.files import write_text, written_whole
from mmms_plugin.registry import HOOKS
from mmms_plugin.report.drawing import (
    Objects,
    Style,
    draw_objects,
    draw_segments,
    save_drawing,
    side_by_side,
)
from mmms_plugin.train.inputs import Input
from mmms_plugin.train.prediction import ClassPrediction, ObjectPrediction, Prediction, SegmentPrediction

DRAWN = "drawn"  # folder of the drawings
LOWEST_SCORE = 0.3  # of the objects of a detector that count, unless the user says otherwise
JPEG = (".jpg", ".jpeg")


class Results(ABC):
    """The results of one run, in one folder. A context manager: after a normal exit all files are complete.

    Args:
        out: the folder.
        style: names and colours of the classes.
        draw: whether to draw the pictures.
        score: lowest score of an object that counts.
    """

    predicts: ClassVar[type[Prediction]]

    def __init__(self, out: Path, style: Style, draw: bool, score: float) -> None:
        self.out, self.style, self.draw, self.score = out, style, draw, score
        self.count = 0

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def add(self, source: Input, pixels: np.ndarray, sample: Any) -> None:
        """Keep and draw the prediction for a picture.

        Args:
            source: the picture's file.
            pixels: RGB [height, width, 3].
            sample: the model's data sample.

        Raises:
            UserError: the model predicts something other than this class keeps.
        """
        prediction = self.predicts.of(str(source.path), pixels, self.style, sample, self.score)
        self.keep(source, prediction)
        if self.draw:
            save_drawing(prediction.draw(), self.drawing(source))

    @abstractmethod
    def keep(self, source: Input, prediction: Any) -> None:
        """Keep the prediction for a picture, which is of the class ``predicts``."""

    @abstractmethod
    def outputs(self, source: Input) -> list[Path]:
        """The files that ``add`` writes for a picture."""

    @abstractmethod
    def summary(self) -> str:
        """How many results there are and where, in words."""

    def drawing(self, source: Input) -> Path:
        """The file of a picture's drawing: JPEG for a JPEG, PNG for others."""
        return self.out / DRAWN / f"{source.name}{_suffix_of(source.path)}"


class _JsonResults(Results):
    """``predictions.json``: records are written picture by picture, everything else at the end."""

    records: str  # key of the list of records

    def __enter__(self) -> _JsonResults:
        self._stack = ExitStack()
        temporary = self._stack.enter_context(written_whole(self.out / "predictions.json"))
        self._file = self._stack.enter_context(temporary.open("w", encoding="utf-8"))
        self._file.write(f'{{"{self.records}": [')
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._file.write("\n], " + json.dumps(self.rest())[1:] + "\n")
        self._stack.__exit__(*error)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        self._file.write(("," if self.count else "") + "\n" + json.dumps(record))
        self.count += 1

    @abstractmethod
    def rest(self) -> dict[str, Any]:
        """The other keys of the file."""

    def outputs(self, source: Input) -> list[Path]:
        return [self.drawing(source)] if self.draw else []


class ObjectResults(_JsonResults):
    """COCO: images, categories, and annotations with scores.

    Ids of images and categories start at 1: images in the order of the run, categories in the order of the model.
    """

    records, predicts = "annotations", ObjectPrediction

    def __enter__(self) -> ObjectResults:
        super().__enter__()
        self._images: list[dict[str, Any]] = []
        return self

    def rest(self) -> dict[str, Any]:
        names = [{"id": k, "name": name} for k, name in enumerate(self.style.classes, 1)]
        return {"images": self._images, "categories": names, "info": {"least_score": self.score}}

    def keep(self, source: Input, prediction: ObjectPrediction) -> None:
        height, width = prediction.pixels.shape[:2]
        self._images.append({"id": len(self._images) + 1, "file_name": str(source.path), "height": height,
                             "width": width})  # fmt: skip
        for i in range(len(prediction)):
            self.write(self._record(prediction, i))

    def _record(self, objects: ObjectPrediction, i: int) -> dict[str, Any]:
        left, top, right, bottom = (round(float(value), 2) for value in objects.boxes[i])
        box = [left, top, round(right - left, 2), round(bottom - top, 2)]
        record: dict[str, Any] = {
            "id": self.count + 1, "image_id": len(self._images), "category_id": int(objects.labels[i]) + 1, "bbox": box,
            "score": round(float(objects.scores[i]), 5), "area": round(box[2] * box[3], 2), "iscrowd": 0,
        }  # fmt: skip
        if objects.masks is not None:
            mask = rle.encode(np.asfortranarray(np.asarray(objects.masks[i], np.uint8)))
            record["area"] = int(rle.area(mask))
            record["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode("ascii")}
        return record

    def summary(self) -> str:
        return f"{counted(self.count, 'object')} of score {self.score:g} or more in {self.out / 'predictions.json'}"


class ClassResults(_JsonResults):
    """One record for each picture: the likeliest class, all scores, and the classes that reach ``score``."""

    records, predicts = "pictures", ClassPrediction

    def rest(self) -> dict[str, Any]:
        return {"classes": list(self.style.classes)}

    def keep(self, source: Input, prediction: ClassPrediction) -> None:
        classes, values = self.style.classes, prediction.scores
        best = int(values.argmax())
        record = {"file_name": str(source.path), "class": classes[best], "score": round(float(values[best]), 5)}
        if self.score:
            record["classes"] = [classes[k] for k in sorted(prediction.labels)]
        self.write({**record, "scores": [round(float(value), 5) for value in values]})

    def summary(self) -> str:
        return f"classes in {self.out / 'predictions.json'}"


class SegmentResults(Results):
    """``masks/NAME.png``: the class index of every pixel, with the classes' colours; ``labels.txt``: their names."""

    predicts = SegmentPrediction

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            write_text(self.out / "labels.txt", "".join(f"{name}\n" for name in self.style.classes))

    def keep(self, source: Input, prediction: SegmentPrediction) -> None:
        wide = len(self.style.classes) > 256
        image = Image.fromarray(prediction.segments.astype(np.uint16 if wide else np.uint8))
        if not wide:
            image = image.convert("P")
            image.putpalette([value for colour in self.style.colours for value in colour])
        with written_whole(self.outputs(source)[0]) as temporary:
            image.save(temporary, format="PNG")
        self.count += 1

    def outputs(self, source: Input) -> list[Path]:
        mask = self.out / "masks" / f"{source.name}.png"
        return [mask, self.drawing(source)] if self.draw else [mask]

    def summary(self) -> str:
        return f"{counted(self.count, 'mask')} in {self.out / 'masks'}, classes in {self.out / 'labels.txt'}"


@HOOKS.register_module()
class DrawingHook(Hook):
    """Draw the predictions of a test run, boxes and instance masks or a class for each pixel, beside the truth.

    The truth of boxes and masks comes from the data set, in pixels of the picture's file, wherever the test pipeline
    loads annotations.

    Args:
        out_dir: folder of the drawings, which are named after the pictures, with their sub-folders.
        score: lowest score of an object that is drawn.
    """

    priority = "NORMAL"

    def __init__(self, out_dir: str, score: float = LOWEST_SCORE) -> None:
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
            kind: type[Prediction] = ObjectPrediction if "pred_instances" in sample else SegmentPrediction
            predicted = kind.of(path, pixels, self._style, sample, self.score)
            if kind is ObjectPrediction:
                truth = _true_objects(dataset.get_data_info(self._places[path]), *pixels.shape[:2])
                true, title = draw_objects(pixels, truth, self._style), f"prediction, score >= {self.score:g}"
            else:
                known = _true_segments(sample, (pixels.shape[0], pixels.shape[1]))
                true, title = draw_segments(pixels, known, self._style), "prediction"
            save_drawing(side_by_side(true, predicted.draw(), ("truth", title)), self._file(path, dataset))

    def _file(self, picture: str, dataset: Any) -> Path:
        """The drawing of a picture; its name has the picture's suffix too if two pictures differ only in that."""
        path = Path(picture)
        root = Path(next(iter((getattr(dataset, "data_prefix", None) or {"": ""}).values())) or ".")
        below = path.relative_to(root) if root in path.parents else Path(path.name)
        suffix = _suffix_of(path)
        file = self.out_dir / below.with_suffix(suffix)
        if self._drawn.setdefault(file, picture) != picture:
            file = self.out_dir / f"{below}{suffix}"
        if file.resolve() == path.resolve():
            raise UserError(f"--show-dir {self.out_dir}: {path} is one of the pictures and would be replaced")
        return file


def _suffix_of(picture: Path) -> str:
    return ".jpg" if picture.suffix.lower() in JPEG else ".png"


def _true_objects(info: Mapping[str, Any], height: int, width: int) -> Objects:
    """A data set's annotations of a picture, without those to ignore."""
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
    """The true class of every pixel of the picture; 255, void, if unknown."""
    if "gt_sem_seg" not in sample:
        return np.full(shape, 255)
    known = np.asarray(sample.gt_sem_seg.data.cpu())[0]
    if known.shape == shape:
        return known
    # the pipeline resizes after loading annotations
    return np.asarray(Image.fromarray(known.astype(np.int32)).resize(shape[::-1], Image.Resampling.NEAREST))
