"""Predictions for single pictures: objects, a class for each pixel, or a class for each picture, as arrays.

They draw themselves, in a notebook too, and become supervision's objects.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from mmms_plugin.coco.run_lengths import RLE
from mmms_plugin.errors import UserError, counted
from mmms_plugin.report.drawing import Objects, Style, draw_caption, draw_objects, draw_segments, save_drawing


@dataclass(frozen=True, repr=False)
class Prediction(ABC):
    """The prediction for a picture.

    Attributes:
        picture: its name: a path, or a number if the picture was given as an array.
        pixels: RGB [height, width, 3], 8 bits.
        style: names and colours of the classes.
    """

    picture: str
    pixels: np.ndarray
    style: Style

    @classmethod
    @abstractmethod
    def of(cls, picture: str, pixels: np.ndarray, style: Style, sample: Any, score: float) -> Prediction:
        """From a model's data sample.

        Args:
            picture, pixels, style: as the attributes.
            sample: the model's output for the picture.
            score: lowest score that counts.

        Raises:
            UserError: the model predicts something else.
        """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, in the order of the labels."""
        return self.style.classes

    @abstractmethod
    def draw(self) -> Image.Image:
        """The prediction over the picture, or below it."""

    def save(self, path: str | Path) -> Path:
        """Write the drawing as ``.jpg`` or ``.png``, completely or not at all.

        Raises:
            UserError: another suffix, or the file cannot be written.
        """
        path = Path(path)
        if path.suffix not in (".jpg", ".png"):
            raise UserError(f"path={path}: the suffix must be .jpg or .png")
        save_drawing(self.draw(), path)
        return path

    @abstractmethod
    def to_supervision(self) -> Any:
        """As supervision's object, if the package is installed.

        Raises:
            UserError: it is not.
        """

    @abstractmethod
    def summary(self) -> str:
        """What is predicted, in words."""

    def __repr__(self) -> str:
        return f"{self.picture}: {self.summary()}"

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.draw().save(file, format="PNG")
        return file.getvalue()


@dataclass(frozen=True, repr=False)
class ObjectPrediction(Prediction):
    """The objects of a detector.

    Attributes:
        boxes: [N, 4], left, top, right and bottom in px.
        labels: N indices of classes.
        scores: N scores.
        rles: N masks as COCO's run lengths; None if the model predicts boxes only.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    rles: Sequence[RLE] | None

    @classmethod
    def of(cls, picture: str, pixels: np.ndarray, style: Style, sample: Any, score: float) -> ObjectPrediction:
        instances = sample.get("pred_instances")
        if instances is None or "bboxes" not in instances:
            raise UserError("this model predicts no boxes: mmms predict keeps those of detectors")
        instances = instances[instances.scores >= score].cpu()
        boxes = np.asarray(getattr(instances.bboxes, "tensor", instances.bboxes), dtype=float).reshape(-1, 4)
        rles = None
        if "masks" in instances:  # of tiles, they are run lengths already
            masks = instances.masks
            rles = masks if isinstance(masks, list) else [_encoded(mask) for mask in np.asarray(masks, np.uint8)]
        labels, scores = np.asarray(instances.labels, dtype=int), np.asarray(instances.scores, dtype=float)
        return cls(picture, pixels, style, boxes, labels, scores, rles)

    @cached_property
    def masks(self) -> np.ndarray | None:
        """[N, height, width] booleans, in memory together; None if the model predicts boxes only."""
        if self.rles is None:
            return None
        masks = [mask_utils.decode(rle).astype(bool) for rle in self.rles]
        return np.array(masks, bool).reshape(-1, *self.pixels.shape[:2])

    @property
    def objects(self) -> Objects:
        """As the drawing functions take them."""
        return Objects(self.boxes, self.labels, self.scores, self.rles)

    def __len__(self) -> int:
        return len(self.boxes)

    def draw(self) -> Image.Image:
        return draw_objects(self.pixels, self.objects, self.style)

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, with the names of the classes in ``data["class_name"]``."""
        names = np.array([self.classes[k] for k in self.labels], dtype=str)
        return _supervision().Detections(
            xyxy=self.boxes, mask=self.masks, confidence=self.scores, class_id=self.labels, data={"class_name": names}
        )

    def summary(self) -> str:
        counts = Counter(self.classes[k] for k in self.labels)
        named = ": " + ", ".join(f"{count} {name}" for name, count in counts.items()) if counts else ""
        return f"{counted(len(self), 'object')}{named}"


@dataclass(frozen=True, repr=False)
class SegmentPrediction(Prediction):
    """The class of every pixel.

    Attributes:
        segments: [height, width] indices of classes.
    """

    segments: np.ndarray

    @classmethod
    def of(cls, picture: str, pixels: np.ndarray, style: Style, sample: Any, score: float) -> SegmentPrediction:
        segments = sample.get("pred_sem_seg")
        if segments is None:
            raise UserError(
                "this model predicts no class for each pixel: mmms predict keeps those of segmentation models"
            )
        return cls(picture, pixels, style, np.asarray(segments.data.cpu())[0])

    def draw(self) -> Image.Image:
        return draw_segments(self.pixels, self.segments, self.style)

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, one mask for each class that occurs."""
        labels = np.unique(self.segments)
        masks = self.segments == labels[:, None, None]
        boxes = np.array([_box_of(mask) for mask in masks], dtype=float).reshape(-1, 4)
        names = np.array([self.classes[k] for k in labels], dtype=str)
        return _supervision().Detections(xyxy=boxes, mask=masks, class_id=labels, data={"class_name": names})

    def summary(self) -> str:
        labels, counts = np.unique(self.segments, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return ", ".join(f"{self.classes[labels[i]]} {counts[i] / self.segments.size:.0%}" for i in order)


@dataclass(frozen=True, repr=False)
class ClassPrediction(Prediction):
    """The classes of a picture.

    Attributes:
        scores: of all classes.
        labels: indices of the classes that count, the likeliest first: one, or all that reach a model's threshold if it
            gives several labels.
    """

    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, picture: str, pixels: np.ndarray, style: Style, sample: Any, score: float) -> ClassPrediction:
        """As in ``Prediction``; with a score of 0, the likeliest class counts."""
        values = sample.get("pred_score")
        if values is None:
            raise UserError("this model predicts no score for each class: mmms predict keeps those of classifiers")
        scores = np.asarray(values.cpu(), dtype=float)
        labels = np.flatnonzero(scores >= score) if score else np.array([scores.argmax()])
        return cls(picture, pixels, style, scores, labels[np.argsort(-scores[labels], kind="stable")])

    def draw(self) -> Image.Image:
        return draw_caption(self.pixels, [f"{self.classes[k]} {self.scores[k]:.2f}" for k in self.labels])

    def to_supervision(self) -> Any:
        """As ``supervision.Classifications``, of all classes."""
        return _supervision().Classifications(class_id=np.arange(len(self.scores)), confidence=self.scores)

    def summary(self) -> str:
        return ", ".join(f"{self.classes[k]} {self.scores[k]:.2f}" for k in self.labels) or "no class"


def _encoded(mask: np.ndarray) -> RLE:
    return mask_utils.encode(np.asfortranarray(mask))


def _box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box of a mask that is not empty, to the far edges of its last pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _supervision() -> Any:
    try:
        import supervision
    except ImportError:
        raise UserError(
            "to_supervision: supervision is not installed; install it with: pip install supervision"
        ) from None
    return supervision
