"""Predictions, kept and drawn: COCO JSON, PNG masks or classes, depending on the model's task.

``Results`` and its subclasses keep and draw the predictions of ``mmms predict``. ``DrawingHook`` draws truth and
prediction side by side, for ``mmms test --show-dir``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import mmcv
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.coco.run_lengths import text_of
from mmms_plugin.errors import UserError, counted
from mmms_plugin.files import write_text, written_whole
from mmms_plugin.registry import HOOKS
from mmms_plugin.report.drawing import (
    Objects,
    Style,
    draw_caption,
    draw_objects,
    draw_segments,
    save_drawing,
    side_by_side,
    stacked,
)
from mmms_plugin.report.run_results import SAMPLES
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

    def entry(self, source: Input, pixels: np.ndarray, sample: Any) -> Any:
        """Write a picture's own files, and return what ``add`` takes of its prediction.

        Args:
            source: the picture's file.
            pixels: RGB [height, width, 3].
            sample: the model's data sample.

        Returns:
            What JSON can hold: another process may add it.

        Raises:
            UserError: the model predicts something other than this class keeps.
        """
        prediction = self.predicts.of(str(source.path), pixels, self.style, sample, self.score)
        entry = self.entry_of(source, prediction)
        if self.draw:
            save_drawing(prediction.draw(), self.drawing(source))
        return entry

    @abstractmethod
    def entry_of(self, source: Input, prediction: Any) -> Any:
        """As ``entry``, without the drawing; the prediction is of the class ``predicts``."""

    @abstractmethod
    def add(self, entry: Any) -> None:
        """Keep the next picture's entry."""

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

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write a record."""
        self._file.write(("," if self.count else "") + "\n" + json.dumps(entry))
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

    def entry_of(self, source: Input, prediction: ObjectPrediction) -> dict[str, Any]:
        height, width = prediction.pixels.shape[:2]
        image = {"file_name": str(source.path), "height": height, "width": width}
        return {"image": image, "objects": [_record(prediction, i) for i in range(len(prediction))]}

    def add(self, entry: Mapping[str, Any]) -> None:
        """Number a picture and its objects, and write the objects."""
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, **entry["image"]})
        for record in entry["objects"]:
            super().add({"id": self.count + 1, "image_id": image_id, **record})

    def summary(self) -> str:
        return f"{counted(self.count, 'object')} of score {self.score:g} or more in {self.out / 'predictions.json'}"


class ClassResults(_JsonResults):
    """One record for each picture: the likeliest class, all scores, and the classes that reach ``score``."""

    records, predicts = "pictures", ClassPrediction

    def rest(self) -> dict[str, Any]:
        return {"classes": list(self.style.classes)}

    def entry_of(self, source: Input, prediction: ClassPrediction) -> dict[str, Any]:
        classes, values = self.style.classes, prediction.scores
        best = int(values.argmax())
        record = {"file_name": str(source.path), "class": classes[best], "score": round(float(values[best]), 5)}
        if self.score:
            record["classes"] = [classes[k] for k in sorted(prediction.labels)]
        return {**record, "scores": [round(float(value), 5) for value in values]}

    def summary(self) -> str:
        return f"classes in {self.out / 'predictions.json'}"


class SegmentResults(Results):
    """``masks/NAME.png``: the class index of every pixel, with the classes' colours; ``labels.txt``: their names."""

    predicts = SegmentPrediction

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            write_text(self.out / "labels.txt", "".join(f"{name}\n" for name in self.style.classes))

    def entry_of(self, source: Input, prediction: SegmentPrediction) -> None:
        wide = len(self.style.classes) > 256
        image = Image.fromarray(prediction.segments.astype(np.uint16 if wide else np.uint8))
        if not wide:
            image = image.convert("P")
            image.putpalette([value for colour in self.style.colours for value in colour])
        with written_whole(self.outputs(source)[0]) as temporary:
            image.save(temporary, format="PNG")

    def add(self, entry: None) -> None:
        """Count a mask."""
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
    loads annotations. Classes are written below the picture.

    Args:
        out_dir: folder of the drawings, which are named after the pictures, with their sub-folders; those of a data set
            without files, such as CIFAR's, by their number.
        score: lowest score of an object that is drawn.
    """

    priority = "NORMAL"

    def __init__(self, out_dir: str, score: float = LOWEST_SCORE) -> None:
        self.out_dir, self.score = Path(out_dir), score

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        self._style = Style.of(dataset.metainfo["classes"], dataset.metainfo.get("palette"))
        # of all pictures, so that it does not matter which process of a run draws which of them
        self._places: dict[str, int] = {}
        self._files: dict[str, Path] = {}
        names: dict[Path, str] = {}
        for place in range(len(dataset)):
            picture = _key(dataset.get_data_info(place).get("img_path"), place)
            self._places[picture] = place
            self._files[picture] = self._file(picture, dataset, names)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        dataset = runner.test_dataloader.dataset
        for sample in outputs or ():
            picture = _key(sample.get("img_path"), sample.get("sample_idx"))
            drawing = beside_truth(sample, dataset.get_data_info(self._places[picture]), self._style, self.score)
            save_drawing(drawing, self._files[picture])

    def _file(self, picture: str, dataset: Any, names: dict[Path, str]) -> Path:
        """The drawing of a picture; its name has the picture's suffix too if two pictures differ only in that."""
        path = Path(picture)
        root = Path(next(iter((getattr(dataset, "data_prefix", None) or {"": ""}).values())) or ".")
        below = path.relative_to(root) if root in path.parents else Path(path.name)
        suffix = _suffix_of(path)
        file = self.out_dir / below.with_suffix(suffix)
        if names.setdefault(file, picture) != picture:
            file = self.out_dir / f"{below}{suffix}"
        if file.resolve() == path.resolve():
            raise UserError(f"--show-dir {self.out_dir}: {path} is one of the pictures and would be replaced")
        return file


def _key(path: str | None, place: int) -> str:
    """What identifies a picture of a data set: its path, or its number if it has no file."""
    return str(path or place)


class SampleHook(Hook):
    """Draw a few pictures of the validation, predictions beside the truth, after every evaluation of a training.

    The sheets are ``samples/epoch_3.jpg`` or ``samples/iter_500.jpg`` in the work folder. The pictures are spread over
    the validation, and the same each time.

    Args:
        count: pictures on a sheet.
    """

    priority = "VERY_LOW"

    def __init__(self, count: int) -> None:
        self.count = count
        self._infos: dict[str, Mapping[str, Any]] | None = None  # of the pictures, by path
        self._drawings: dict[str, Image.Image] = {}

    def before_val_epoch(self, runner: Runner) -> None:
        self._drawings = {}
        dataset = runner.val_dataloader.dataset
        if self._infos is None and is_main_process() and hasattr(dataset, "get_data_info"):
            # the first process has every n-th picture
            shown = range(0, len(dataset), runner.world_size * max(1, len(dataset) // runner.world_size // self.count))
            infos = [dataset.get_data_info(i) for i in islice(shown, self.count)]
            self._infos = {str(info["img_path"]): info for info in infos if "img_path" in info}
            self._style = Style.of(dataset.metainfo.get("classes") or (), dataset.metainfo.get("palette"))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        for sample in outputs or ():
            path = str(sample.get("img_path")) if isinstance(sample, BaseDataElement) else ""
            info = (self._infos or {}).get(path)
            if info is not None and self._style.classes and Path(path).is_file():
                with suppress(UserError):  # a model of another kind, say of depths, is trained without drawings
                    self._drawings[path] = beside_truth(sample, info, self._style, LOWEST_SCORE)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._drawings:
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            name = f"epoch_{runner.epoch}" if by_epoch else f"iter_{runner.iter}"
            drawings = [self._drawings[path] for path in self._infos or () if path in self._drawings]
            save_drawing(stacked(drawings), Path(runner.work_dir, SAMPLES, f"{name}.jpg"))


def beside_truth(sample: Any, info: Mapping[str, Any], style: Style, score: float) -> Image.Image:
    """A drawing of the truth beside that of the prediction, or below the picture for a class.

    Args:
        sample: the model's data sample.
        info: what the data set says about the picture, whose file exists.
        style: names and colours of the classes.
        score: lowest score of an object that is drawn.
    """
    path = str(sample.get("img_path") or "")
    pixels = np.asarray(mmcv.imread(path, channel_order="rgb") if path else info["img"])
    if "pred_score" in sample:
        true = [int(label) for label in sample.gt_label] if "gt_label" in sample else []
        found = ClassPrediction.of(path, pixels, style, sample, 0.0 if len(true) == 1 else 0.5)
        truth = ", ".join(style.classes[label] for label in true) or "no class"
        return draw_caption(pixels, [f"truth: {truth}", f"prediction: {found.summary()}"])
    kind: type[Prediction] = ObjectPrediction if "pred_instances" in sample else SegmentPrediction
    predicted, title = kind.of(path, pixels, style, sample, score), "prediction"
    if kind is ObjectPrediction:
        drawn = draw_objects(pixels, _true_objects(info, *pixels.shape[:2]), style)
        title = f"prediction, score >= {score:g}"
    else:
        drawn = draw_segments(pixels, _true_segments(sample, (pixels.shape[0], pixels.shape[1])), style)
    return side_by_side(drawn, predicted.draw(), ("truth", title))


def _record(objects: ObjectPrediction, i: int) -> dict[str, Any]:
    left, top, right, bottom = (round(float(value), 2) for value in objects.boxes[i])
    box = [left, top, round(right - left, 2), round(bottom - top, 2)]
    record: dict[str, Any] = {
        "category_id": int(objects.labels[i]) + 1, "bbox": box,
        "score": round(float(objects.scores[i]), 5), "area": round(box[2] * box[3], 2), "iscrowd": 0,
    }  # fmt: skip
    if objects.rles is not None:
        mask = objects.rles[i]
        record["area"] = int(rle.area(mask))
        record["segmentation"] = {"size": mask["size"], "counts": text_of(mask["counts"])}
    return record


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
