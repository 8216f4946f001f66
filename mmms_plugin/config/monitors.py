"""Metrics that a config's hooks and schedulers follow, compared with those that its evaluation reports.

mmengine looks for them in the first evaluation, hours later: there a misspelt name is a KeyError, or early stopping
never stops.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from mmengine.hooks import CheckpointHook

from mmms_plugin.config.edit import class_name, dicts_in
from mmms_plugin.config.schedule import schedulers_of
from mmms_plugin.errors import UserError, printable
from mmms_plugin.evaluation.classification import COMBINATIONS
from mmms_plugin.evaluation.size_ap_metric import NAMES, PRECISIONS, RECALLS
from mmms_plugin.evaluation.size_iou_metric import KEYS
from mmms_plugin.size_ap.bins import resolve_bins

SHOWN = 12  # names in a message
RULES = {"rule", "greater_keys", "less_keys"}  # arguments that say whether more is better
RARELY_FOLLOWED = ("aAcc",)  # the share of right pixels, which large classes decide
Metric = Mapping[str, Any]  # config of a metric
LVIS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
OF_IOU = {"mIoU": ("mIoU", "mAcc"), "mDice": ("mDice", "mAcc"), "mFscore": ("mFscore", "mPrecision", "mRecall")}


def check_monitors(config: Mapping[str, Any]) -> None:
    """Check every metric that a hook or scheduler follows, if all metrics of the validation are known.

    Raises:
        UserError: the validation does not report one.
    """
    allowed = _reported_by_all(config)
    if allowed is None:
        return
    for place, name in _followed(config):
        if not allowed:
            raise UserError(f"{place}={printable(name)!r}: the validation reports lists of figures only")
        if name == "auto":
            _check_rule(place, allowed[0])
            continue
        if any(fnmatchcase(name, pattern) for pattern in allowed):
            continue
        near = difflib.get_close_matches(name, allowed, n=3, cutoff=0.6)
        hint = f"the nearest are {', '.join(near)}; " if near else ""
        raise UserError(
            f"{place}={printable(name)!r}: the validation does not report it; {hint}allowed are {listed(allowed)}"
        )


def followed_metric(config: Mapping[str, Any]) -> str:
    """The metric that the best checkpoint is chosen by, or else the first of the validation that is usually followed.

    Raises:
        UserError: it is unknown what the validation reports, or it reports no single figure.
    """
    best = ((config.get("default_hooks") or {}).get("checkpoint") or {}).get("save_best")
    names = best if isinstance(best, list | tuple) else [best]
    if names and isinstance(names[0], str) and names[0] != "auto":
        return names[0]
    reported = [name for name in _reported_by_all(config) or () if "*" not in name and name not in RARELY_FOLLOWED]
    name = next(iter(reported), None)
    if name is None:
        raise UserError(
            "--patience: which metric to follow is not known for this validation: name it, and whether more is better, "
            "with --cfg-options default_hooks.checkpoint.save_best=NAME default_hooks.checkpoint.rule=greater"
        )
    return name


def _reported_by_all(config: Mapping[str, Any]) -> list[str] | None:
    """What the validation reports; None if it has no metric, or one that is not known."""
    metrics = [part for part in dicts_in(config.get("val_evaluator")) if "type" in part]
    scope = str(config.get("default_scope"))
    if not metrics or any(_name(metric["type"], scope) not in REPORTED for metric in metrics):
        return None
    return [name for metric in metrics for name in _reported(metric, scope)]


def listed(names: Iterable[str]) -> str:
    """Names of metrics for a message, the first of many."""
    names = [printable(name) for name in names]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _check_rule(place: str, name: str) -> None:
    """Raise UserError if mmengine cannot tell whether more of a metric is better."""
    try:
        CheckpointHook(save_best=name)
    except ValueError as error:
        raise UserError(
            f"{place}='auto': stands for {name}, of which mmengine does not know whether more is better; give rule="
            "'greater' or 'less' beside it"
        ) from error


def _followed(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Places in a config that name a metric, and the names."""
    hooks = [(f"default_hooks.{key}", hook) for key, hook in (config.get("default_hooks") or {}).items()]
    hooks += [(f"custom_hooks.{i}", hook) for i, hook in enumerate(config.get("custom_hooks") or ())]
    for place, hook in hooks:
        if not isinstance(hook, Mapping):
            continue
        best = hook.get("save_best")
        for name in best if isinstance(best, list | tuple) else [best]:
            if isinstance(name, str) and not (name == "auto" and RULES & hook.keys()):
                yield f"{place}.save_best", name
        if class_name(hook) == "EarlyStoppingHook" and isinstance(hook.get("monitor"), str):
            yield f"{place}.monitor", hook["monitor"]
    for i, scheduler in enumerate(schedulers_of(config)):
        if class_name(scheduler).startswith("ReduceOnPlateau"):
            yield f"param_scheduler.{i}.monitor", scheduler.get("monitor", "loss")  # mmengine's default


def _name(kind: Any, scope: str) -> str:
    """A metric's type as 'mmdet.CocoMetric', whether a config names it without its scope or has the class."""
    if isinstance(kind, type):
        scope = kind.__module__.partition(".")[0]
    elif "." in str(kind):
        scope = str(kind).partition(".")[0]
    return f"{scope}.{class_name({'type': kind})}"


def _reported(metric: Metric, scope: str) -> list[str]:
    """The metrics that an evaluator reports as numbers; patterns with * for names that depend on the data."""
    default, names = REPORTED[_name(metric["type"], scope)]
    prefix = metric.get("prefix") or default
    return [f"{prefix}/{name}" if prefix else name for name in names(metric)]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _coco(metric: Metric) -> Iterator[str]:
    items = metric.get("metric_items")
    for kind in _as_list(metric.get("metric", "bbox")):
        if kind == "proposal_fast":
            yield from (f"AR@{count}" for count in metric.get("proposal_nums", (100, 300, 1000)))
        elif kind == "proposal":
            yield from items or RECALLS
        else:
            yield from (f"{kind}_{item}" for item in items or PRECISIONS)
    if metric.get("classwise"):
        yield "*_precision"


def _size_ap(metric: Metric) -> Iterator[str]:
    yield from _coco(metric)
    for kind in _as_list(metric.get("metric", "bbox")):
        for name in _bins(metric)[1:] if kind != "proposal" else ():
            yield from (f"{kind}_{figure}_{name}" for figure in NAMES.values())
            if metric.get("bootstrap"):
                yield from (f"{kind}_mAP_{name}_{end}" for end in ("low", "high"))


def _bins(metric: Metric) -> list[str]:
    """Names of the bins, 'all' first."""
    text = ",".join(map(str, _as_list(metric.get("bins", "coco"))))
    gaps, overlaps = (bool(metric.get(key)) for key in ("allow_gaps", "allow_overlaps"))
    areas = np.arange(1.0, 10_000)  # of any objects: quantiles have the same names for all
    return [part.name for part in resolve_bins(text, metric.get("bin_unit", "side"), areas, gaps, overlaps).bins]


def _lvis(metric: Metric) -> Iterator[str]:
    items = metric.get("metric_items")
    for kind in _as_list(metric.get("metric", "bbox")):
        if kind == "proposal_fast":
            yield from (f"AR@{count}" for count in metric.get("proposal_nums", (100, 300, 1000)))
        elif kind == "proposal":
            yield from items or ("AR@300", "ARs@300", "ARm@300", "ARl@300")
        else:
            yield from (f"{kind}_{item}" for item in items or LVIS)
    if metric.get("classwise"):
        yield "*_precision"


def _voc(metric: Metric) -> Iterator[str]:
    thresholds = _as_list(metric.get("iou_thrs", 0.5))
    if _as_list(metric.get("metric", "mAP")) == ["recall"]:
        for count in metric.get("proposal_nums", (100, 300, 1000)):
            yield from (f"recall@{count}@{threshold}" for threshold in thresholds)
            yield f"AR@{count}"
        return
    yield "mAP"
    yield from (f"AP{int(threshold * 100):02d}" for threshold in thresholds)


def _iou(metric: Metric) -> Iterator[str]:
    yield "aAcc"
    for kind in _as_list(metric.get("iou_metrics", ["mIoU"])):
        yield from OF_IOU.get(kind, ())


def _size_iou(metric: Metric) -> Iterator[str]:
    yield from _iou(metric)
    for name in _bins(metric):
        yield from (f"{key}_{name}" for key in KEYS.values())
        if metric.get("bootstrap"):
            yield from (f"{KEYS['iou']}_{name}_{end}" for end in ("low", "high"))


def _accuracy(metric: Metric) -> Iterator[str]:
    for k in _as_list(metric.get("topk", 1)):
        yield from (f"top{k}{end}" for end in _thresholds(metric.get("thrs", 0.0)))


def _thresholds(values: Any) -> list[str]:
    """Ends of names in mmpretrain, one for each threshold if there are several."""
    several = _as_list(values)
    return ["_no-thr" if v is None else f"_thr-{v:.2f}" for v in several] if len(several) > 1 else [""]


def _averaged(metric: Metric, ends: list[str]) -> Iterator[str]:
    average = metric.get("average", "macro")
    if average is None:  # lists, a figure for each class
        return
    last = "" if average == "macro" else f"_{average}"
    for item in metric.get("items", ("precision", "recall", "f1-score")):
        yield from (f"{item}{end}{last}" for end in ends)


def _single_label(metric: Metric) -> Iterator[str]:
    yield from _averaged(metric, _thresholds(metric.get("thrs", 0.0)))


def _multi_label(metric: Metric) -> Iterator[str]:
    threshold, top = metric.get("thr"), metric.get("topk")
    if threshold is None and top is not None:
        yield from _averaged(metric, [f"_top{top}"])
    else:
        yield from _averaged(metric, [f"_thr-{threshold:.2f}" if threshold not in (None, 0.5) else ""])


def _class(metric: Metric) -> Iterator[str]:
    yield from (f"top{k}" for k in _as_list(metric.get("topk", (1, 5))))
    yield "exit*_top1"


def _labels(metric: Metric) -> Iterator[str]:
    yield from ("mAP", "F1_per_class", "F1_overall")
    for size in ("small", "medium", "large"):
        yield from (f"{name}_{size}" for name in ("recall", "F1_per_class", "F1_overall"))
    yield from (f"F1_overall_{sizes}" for sizes in COMBINATIONS)


def _always(*names: str) -> Callable[[Metric], tuple[str, ...]]:
    return lambda metric: names


# Prefix and names of each metric
REPORTED: dict[str, tuple[str | None, Callable[[Metric], Any]]] = {
    "mmms_plugin.SizeAPMetric": ("coco", _size_ap),
    "mmms_plugin.SizeIoUMetric": (None, _size_iou),
    "mmms_plugin.ClassMetric": ("accuracy", _class),
    "mmms_plugin.LabelsMetric": ("labels", _labels),
    "mmdet.CocoMetric": ("coco", _coco),
    "mmdet.LVISMetric": ("lvis", _lvis),
    "mmdet.VOCMetric": ("pascal_voc", _voc),
    "mmdet.CityScapesMetric": ("cityscapes", _always("mAP", "AP@50")),
    "mmseg.IoUMetric": (None, _iou),
    "mmpretrain.Accuracy": ("accuracy", _accuracy),
    "mmpretrain.SingleLabelMetric": ("single-label", _single_label),
    "mmpretrain.MultiLabelMetric": ("multi-label", _multi_label),
    "mmpretrain.AveragePrecision": (
        "multi-label", lambda metric: ["mAP"] if metric.get("average", "macro") else []
    ),
}  # fmt: skip
