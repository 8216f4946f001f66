"""Accuracy of classifiers during validation and testing: top-1 and top-5, by exit, with several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from mmms_plugin.files import written_whole
from mmms_plugin.registry import METRICS

Floats = NDArray[np.float64]
COMBINATIONS = ("S", "M", "MS", "L", "LS", "LM", "LMS")  # of object sizes in a picture, as Table 4 of ELASTIC


class _Predictions(BaseMetric):
    """Collects scores and labels of every picture; writes them to ``out_file`` as JSON."""

    def __init__(self, out_file: str | None = None, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.out_file = out_file

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in data_samples:
            result = dict(
                scores=sample["pred_score"].cpu().double().numpy(),
                labels=sample["gt_label"].cpu().numpy().reshape(-1),
                picture=sample.get("img_path", ""),
                sizes=sample.get("label_sizes") or [],
            )
            if "exit_scores" in sample:
                result["exits"] = sample["exit_scores"].cpu().double().numpy()
            self.results.append(result)

    def _keep(self, results: list[dict[str, Any]], top: int | None) -> None:
        """Write a list with a record for each picture.

        Args:
            results: of all pictures.
            top: number of classes to list, None for those with a score above 0.5.
        """
        if self.out_file is None:
            return
        classes = (self.dataset_meta or {}).get("classes")
        named = [str(c) for c in classes] if classes else None
        records = [_record(result, top, named) for result in results]
        with written_whole(self.out_file) as temporary:
            dump(records, str(temporary), file_format="json", indent=1)


def _record(result: Mapping[str, Any], top: int | None, classes: list[str] | None) -> dict[str, Any]:
    scores = result["scores"]
    order = np.argsort(-scores, kind="stable")
    chosen = order[:top] if top else order[scores[order] > 0.5]
    record = dict(
        picture=result["picture"], labels=result["labels"].tolist(), predicted=chosen.tolist(),
        scores=[round(float(scores[i]), 6) for i in chosen],
    )  # fmt: skip
    if classes:
        record["predicted_names"] = [classes[i] for i in chosen]
    return record


@METRICS.register_module()
class ClassMetric(_Predictions):
    """Top-k accuracy in per cent; with several exits also the top-1 accuracy of each.

    Keys: ``accuracy/top1``, ``accuracy/top5``, ``accuracy/exit1_top1``, ``accuracy/exit2_top1``, ... A k above the
    number of classes is omitted.

    Args:
        topk: the values of k, or a single one.
        out_file: JSON file for the five best classes of every picture.
        collect_device, prefix: as in every metric.
    """

    default_prefix = "accuracy"

    def __init__(
        self,
        topk: int | Sequence[int] = (1, 5),
        out_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(out_file, collect_device, prefix)
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not self.topk or any(k < 1 for k in self.topk):
            raise ValueError(f"topk={topk!r}: allowed are integers >= 1")

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        self._keep(results, top=5)
        labels = np.array([result["labels"][0] for result in results])
        scores = np.stack([result["scores"] for result in results])
        metrics = {f"top{k}": _top(scores, labels, k) for k in self.topk if k <= scores.shape[1]}
        if "exits" in results[0]:
            exits = np.stack([result["exits"] for result in results], 1)
            metrics |= {f"exit{i + 1}_top1": _top(scores_of_exit, labels, 1) for i, scores_of_exit in enumerate(exits)}
        return metrics


def _top(scores: Floats, labels: NDArray[np.int64], k: int) -> float:
    best = np.argsort(-scores, 1, kind="stable")[:, :k]
    return 100 * float((best == labels[:, None]).any(1).mean())


@METRICS.register_module()
class LabelsMetric(_Predictions):
    """Pictures with several labels: mean average precision and F1, in per cent (section 4.2 of the ELASTIC paper).

    A label is predicted where its score is above 0.5, that is its logit above 0.

    Keys, below ``labels/``: ``mAP``; ``F1_per_class``, the mean of the classes' own F1, and ``F1_overall``, from pooled
    counts (Table 3). If the data hold the sizes of the objects: ``recall_small``, ``_medium``, ``_large`` of the labels
    with such an object, ``F1_per_class_small``, ``F1_overall_small``, ... and ``F1_overall_S``, ``_M``, ``_MS``, ... of
    the pictures whose objects have exactly these sizes (Table 4). Keys without a picture are omitted.

    Means are over the classes that occur. The authors' code counts 0 for a class without a hit, so also for one that
    never occurs; on COCO's validation pictures all classes occur, and the two agree.

    A wrong label has no size. So the F1 of a size counts the pictures with an object of that size: a class with such an
    object is right or missed, a class with objects of other sizes only is ignored, and a predicted class without any
    object is wrong.

    Args:
        out_file: JSON file for the predicted labels of every picture.
        collect_device, prefix: as in every metric.
    """

    default_prefix = "labels"

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        self._keep(results, top=None)
        scores = np.stack([result["scores"] for result in results])
        truth = np.zeros(scores.shape, bool)
        for row, result in zip(truth, results, strict=True):
            row[result["labels"].astype(int)] = True
        predicted = scores > 0.5
        metrics = dict(
            mAP=mean_average_precision(scores, truth),
            F1_per_class=_mean_of(f1(predicted, truth, 0)[truth.any(0)]),
            F1_overall=float(f1(predicted, truth, None)),
        )
        if absent := int((~truth.any(0)).sum()):
            MMLogger.get_current_instance().info(f"{absent} classes have no picture and do not count in the means")
        return metrics | _by_size(results, predicted, truth)


def f1(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], axis: int | None, counted: NDArray[np.bool_] | None = None
) -> Any:
    """F1 in per cent; 0 where no label is predicted or true.

    Args:
        predicted: ``[pictures, classes]``.
        truth: ``[pictures, classes]``.
        axis: 0 for each class, None for pooled counts.
        counted: ``[pictures, classes]``, the entries to count; None for all.
    """
    hits, wrong = predicted & truth, predicted ^ truth
    if counted is not None:
        hits, wrong = hits & counted, wrong & counted
    return 100 * 2 * hits.sum(axis) / np.maximum(2 * hits.sum(axis) + wrong.sum(axis), 1)


def mean_average_precision(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """Mean over the classes that occur, in per cent; precision at every picture of the class, not interpolated."""
    precisions = []
    for column, positive in zip(scores.T, truth.T, strict=True):
        if positive.any():
            hits = positive[np.argsort(-column, kind="stable")]
            precisions.append((hits.cumsum()[hits] / (np.flatnonzero(hits) + 1)).mean())
    return 100 * _mean_of(precisions)


def _mean_of(values: Sequence[float] | Floats) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _by_size(results: list[dict[str, Any]], predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    metrics = {}
    for size, name in (("S", "small"), ("M", "medium"), ("L", "large")):
        if (of_size := _labels_of(size, results, truth)).any():
            metrics[f"recall_{name}"] = 100 * float(predicted[of_size].mean())
            counted = (of_size | ~truth) & of_size.any(1, keepdims=True)
            metrics[f"F1_per_class_{name}"] = _mean_of(f1(predicted, truth, 0, counted)[of_size.any(0)])
            metrics[f"F1_overall_{name}"] = float(f1(predicted, truth, None, counted))
    combined = np.array(["".join(sorted(set("".join(result["sizes"])))) for result in results])
    for sizes in COMBINATIONS:
        if (rows := combined == sizes).any():
            metrics[f"F1_overall_{sizes}"] = float(f1(predicted[rows], truth[rows], None))
    return metrics


def _labels_of(size: str, results: list[dict[str, Any]], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a label has an object of that size, ``[pictures, classes]``."""
    labels = np.zeros_like(truth)
    for row, result in zip(labels, results, strict=True):
        row[[int(y) for y, sizes in zip(result["labels"], result["sizes"], strict=False) if size in sizes]] = True
    return labels
