"""What ``mmms predict`` keeps of each picture: COCO JSON, PNG masks or classes by the model's task; drawings."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text, written_whole
from mmms_plugin.report.drawing import Objects, Style, draw_caption, draw_objects, draw_segments, save_drawing
from mmms_plugin.train.inputs import Input

DRAWN = "drawn"


class Kept(ABC):
    """The results of one run in one folder; a context manager, whose files are complete when it is left without error.

    Args:
        out: the folder.
        style: names and colours of the classes.
        draw: whether pictures are drawn.
        score: least score of an object that counts.
    """

    made: str  # where the results are, in words, for the last line

    def __init__(self, out: Path, style: Style, draw: bool, score: float) -> None:
        self.out, self.style, self.draw, self.score = out, style, draw, score
        self.count = 0

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    @abstractmethod
    def add(self, source: Input, pixels: np.ndarray, sample: Any) -> None:
        """Keep what the model said (its data sample) of a picture, whose ``pixels`` are RGB [height, width, 3].

        Raises:
            UserError: the model predicts something else than this class keeps.
        """

    @abstractmethod
    def outputs(self, source: Input) -> list[Path]:
        """The files that ``add`` writes for a picture."""

    @abstractmethod
    def summary(self) -> str:
        """What was found."""

    def drawing(self, source: Input) -> Path:
        """The file of a picture's drawing: JPEG for a JPEG, PNG for others."""
        jpeg = source.path.suffix.lower() in (".jpg", ".jpeg")
        return self.out / DRAWN / f"{source.name}{'.jpg' if jpeg else '.png'}"


class _KeptJson(Kept):
    """``predictions.json``, whose list of records is written while pictures come in; the rest follows at the end."""

    records: str  # the name of the list

    def __enter__(self) -> _KeptJson:
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
        """What the file has beside the list."""

    def outputs(self, source: Input) -> list[Path]:
        return [self.drawing(source)] if self.draw else []


class KeptObjects(_KeptJson):
    """COCO: images, categories, and annotations with scores.

    Identifiers of images and categories count from 1, images in the order of the run, categories in the model's.
    """

    records = "annotations"

    def __enter__(self) -> KeptObjects:
        super().__enter__()
        self._images: list[dict[str, Any]] = []
        return self

    def rest(self) -> dict[str, Any]:
        names = [{"id": k, "name": name} for k, name in enumerate(self.style.classes, 1)]
        return {"images": self._images, "categories": names, "info": {"least_score": self.score}}

    def add(self, source: Input, pixels: np.ndarray, sample: Any) -> None:
        instances = sample.get("pred_instances")
        if instances is None or "bboxes" not in instances:
            raise UserError("this model predicts no boxes: mmms predict keeps those of detectors")
        instances = instances[instances.scores >= self.score].cpu()
        boxes = np.asarray(getattr(instances.bboxes, "tensor", instances.bboxes), dtype=float).reshape(-1, 4)
        masks = [rle.encode(np.asfortranarray(np.asarray(mask, np.uint8))) for mask in instances.masks] \
            if "masks" in instances else None  # fmt: skip
        objects = Objects(
            boxes, np.asarray(instances.labels, dtype=int), np.asarray(instances.scores, dtype=float), masks
        )
        self._images.append({"id": len(self._images) + 1, "file_name": str(source.path), "height": pixels.shape[0],
                             "width": pixels.shape[1]})  # fmt: skip
        for i in range(len(boxes)):
            self.write(self._record(objects, i))
        if self.draw:
            save_drawing(draw_objects(pixels, objects, self.style), self.drawing(source))

    def _record(self, objects: Objects, i: int) -> dict[str, Any]:
        left, top, right, bottom = (round(float(value), 2) for value in objects.boxes[i])
        box = [left, top, round(right - left, 2), round(bottom - top, 2)]
        assert objects.scores is not None
        record: dict[str, Any] = {
            "id": self.count + 1, "image_id": len(self._images), "category_id": int(objects.labels[i]) + 1, "bbox": box,
            "score": round(float(objects.scores[i]), 5), "area": round(box[2] * box[3], 2), "iscrowd": 0,
        }  # fmt: skip
        if objects.masks is not None:
            mask: Any = objects.masks[i]
            record["area"] = int(rle.area(mask))
            record["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode("ascii")}
        return record

    def summary(self) -> str:
        return f"{self.count} objects of score {self.score:g} or more in {self.out / 'predictions.json'}"


class KeptClasses(_KeptJson):
    """One record a picture: the likeliest class, the score of every class, and the classes of ``score`` or more."""

    records = "pictures"

    def rest(self) -> dict[str, Any]:
        return {"classes": list(self.style.classes)}

    def add(self, source: Input, pixels: np.ndarray, sample: Any) -> None:
        scores = sample.get("pred_score")
        if scores is None:
            raise UserError("this model predicts no score for each class: mmms predict keeps those of classifiers")
        values = np.asarray(scores.cpu(), dtype=float)
        best = int(values.argmax())
        chosen = [int(k) for k in np.flatnonzero(values >= self.score)] if self.score else [best]
        classes = self.style.classes
        record = {"file_name": str(source.path), "class": classes[best], "score": round(float(values[best]), 5)}
        if self.score:
            record["classes"] = [classes[k] for k in chosen]
        self.write({**record, "scores": [round(float(value), 5) for value in values]})
        if self.draw:
            lines = [f"{classes[k]} {values[k]:.2f}" for k in sorted(chosen, key=lambda k: -values[k])]
            save_drawing(draw_caption(pixels, lines), self.drawing(source))

    def summary(self) -> str:
        return f"classes in {self.out / 'predictions.json'}"


class KeptSegments(Kept):
    """``masks/NAME.png``: the class index of every pixel, with the classes' colours; ``labels.txt``: their names."""

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            write_text(self.out / "labels.txt", "".join(f"{name}\n" for name in self.style.classes))

    def add(self, source: Input, pixels: np.ndarray, sample: Any) -> None:
        segments = sample.get("pred_sem_seg")
        if segments is None:
            raise UserError(
                "this model predicts no class for each pixel: mmms predict keeps those of segmentation models"
            )
        segments = np.asarray(segments.data.cpu())[0]
        self._write_mask(segments, self.mask_file(source))
        self.count += 1
        if self.draw:
            save_drawing(draw_segments(pixels, segments, self.style), self.drawing(source))

    def _write_mask(self, segments: np.ndarray, path: Path) -> None:
        wide = len(self.style.classes) > 256
        image = Image.fromarray(segments.astype(np.uint16 if wide else np.uint8))
        if not wide:
            image = image.convert("P")
            image.putpalette([value for colour in self.style.colours for value in colour])
        with written_whole(path) as temporary:
            image.save(temporary, format="PNG")

    def mask_file(self, source: Input) -> Path:
        """The file of a picture's mask."""
        return self.out / "masks" / f"{source.name}.png"

    def outputs(self, source: Input) -> list[Path]:
        return [self.mask_file(source), *([self.drawing(source)] if self.draw else [])]

    def summary(self) -> str:
        return f"{self.count} masks in {self.out / 'masks'}, classes in {self.out / 'labels.txt'}"
