"""AP by object size during validation and testing of mmdet models, in place of its CocoMetric.

Built on mmdet 3.3 ``mmdet/evaluation/metrics/coco_metric.py``, which collects predictions and writes the COCO JSON
files here too; the numbers come from `mmms_plugin.size_ap`, the same code as ``mmms size-ap``.

Deviations from CocoMetric:
1. Figures keep full precision; CocoMetric rounds to three decimals.
2. An undefined figure (a bin without objects) is NaN; CocoMetric says -1, which looks like a number.
3. Without ``ann_file`` masks are sized by their pixels; CocoMetric sizes them by their boxes.
4. ``bbox_mAP`` counts the best 100 detections per image and class, or fewer if ``proposal_nums`` ends below; CocoMetric
   says -1 if 100 is not in ``proposal_nums``.
5. With ``classwise`` a class has its own figure; CocoMetric exchanges them where the file does not list its categories
   by rising id, because pycocotools sorts them.
6. 'proposal_fast' is refused: mmdet 3.3's own code for it fails with NumPy 1.24 and later. 'proposal' gives the same
   figures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from numpy.typing import NDArray

from mmms_plugin.coco.objects import Detections, GroundTruth
from mmms_plugin.coco.read import Notes, read_detections, read_ground_truth
from mmms_plugin.errors import UserError
from mmms_plugin.registry import METRICS
from mmms_plugin.report.tables import to_markdown
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.bootstrap import bin_figures
from mmms_plugin.size_ap.kernel.matching import IOU_THRESHOLDS, find_candidates, match
from mmms_plugin.size_ap.options import PIPELINE, Options, bins_text, parse_resize, parse_tiles, sides_of
from mmms_plugin.size_ap.report.tables import bin_table
from mmms_plugin.size_ap.resizing import Measured, scale_of
from mmms_plugin.size_ap.results import SizeAPResults

PRECISIONS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
RECALLS = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")
NAMES = {"ap": "mAP", "ap50": "mAP_50", "ap75": "mAP_75", "ar": "AR"}


@METRICS.register_module()
class SizeAPMetric(BaseMetric):
    """mmdet's CocoMetric with named bins of object size and bootstrap intervals.

    Keys are CocoMetric's (``coco/bbox_mAP``, ``coco/segm_mAP_s``, ...), and for every bin ``bbox_mAP_BIN``,
    ``bbox_mAP_50_BIN``, ``bbox_mAP_75_BIN`` and ``bbox_AR_BIN``; with ``bootstrap`` also ``bbox_mAP_BIN_low`` and
    ``_high``. Undefined figures are NaN. CocoMetric's keys follow ``proposal_nums`` as there; those of bins follow
    ``max_dets``.

    CocoMetric's own arguments, ``ann_file`` to ``sort_categories``, are as there; ``metric_items`` limits all keys but
    those of bins, and ``use_mp_eval`` has no effect.

    Args:
        bins: 'coco', 'tiny', 'ai-tod', 'soda', 'quantiles:N', limits or 'name=low:high,...', also as a list.
        bin_unit: 'side' or 'pixels' (square root of the area, px), 'area' (px²) or 'relative' (square root of the share
            of the picture), of own limits and quantiles.
        resize: sizes in bins are those of objects as the network sees them: 'pipeline' as the test pipeline resized
            each picture, or '1333x800'; None for sizes on disk. CocoMetric's own figures are always of sizes on disk.
        tiles: side in px, or (width, height), of tiles that are resized, or that relative sizes are shares of.
        allow_gaps, allow_overlaps: accept bins that do not border on each other.
        area: which area is an object's size: 'box', 'mask', or None for the annotation's ``area`` field (without
            ``ann_file`` box for 'bbox' and mask for 'segm').
        max_dets: detections per image and class for the figures of bins.
        bootstrap: replicates for intervals, 0 for none.
        confidence, seed: of the bootstrap.

    Raises:
        UserError: options, bins or data that do not fit.
        KeyError: an unknown ``metric`` or metric item, as in CocoMetric.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | list[str] = "bbox",
        classwise: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thrs: float | Sequence[float] | None = None,
        metric_items: Sequence[str] | None = None,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        file_client_args: dict | None = None,
        backend_args: dict | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        sort_categories: bool = False,
        use_mp_eval: bool = False,
        bins: str | Sequence[str | float] = "coco",
        bin_unit: str = "side",
        resize: str | Sequence[int] | None = None,
        tiles: int | Sequence[int] | None = None,
        allow_gaps: bool = False,
        allow_overlaps: bool = False,
        area: str | None = None,
        max_dets: int = 100,
        bootstrap: int = 0,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        from mmdet.evaluation import CocoMetric  # the host, only when used

        super().__init__(collect_device=collect_device, prefix=prefix)
        if "proposal_fast" in ([metric] if isinstance(metric, str) else metric):
            raise UserError("metric 'proposal_fast' cannot run with NumPy >= 1.24 (mmdet 3.3): use 'proposal'")
        bins = bins_text(bins)
        if iou_thrs is None:
            iou_thrs = IOU_THRESHOLDS
        thresholds = np.atleast_1d(np.asarray(iou_thrs, dtype=np.float64))
        self.coco = CocoMetric(
            ann_file=ann_file,
            metric=metric,
            classwise=classwise,
            proposal_nums=proposal_nums,
            iou_thrs=thresholds,
            metric_items=metric_items,
            format_only=format_only,
            outfile_prefix=outfile_prefix,
            file_client_args=file_client_args,
            backend_args=backend_args,
            sort_categories=sort_categories,
        )
        unknown = set(metric_items or ()) - {*PRECISIONS, *RECALLS}
        if unknown:
            raise KeyError(f"metric_items {sorted(unknown)}: allowed are {', '.join((*PRECISIONS, *RECALLS))}")
        if not bins.strip().lower().startswith("quantiles"):
            resolve_bins(bins, bin_unit, None, allow_gaps, allow_overlaps)  # refuse now, not after the first epoch
        self.ann_file, self.backend_args, self.area = ann_file, backend_args, area
        self.metrics, self.classwise = self.coco.metrics, classwise
        self.proposal_nums = sorted(proposal_nums)
        self.metric_items = metric_items
        self.pipeline = resize == PIPELINE
        if self.pipeline and tiles is not None:
            raise UserError(
                "resize='pipeline': does not know tiles; give the width and height that they are made to fit"
            )
        self.options = Options(
            area=area or "annotation",
            bins=bins,
            bin_unit=bin_unit,
            resize=None if self.pipeline else sides_of(resize, parse_resize),
            tiles=sides_of(tiles, parse_tiles),
            allow_gaps=allow_gaps,
            allow_overlaps=allow_overlaps,
            max_dets=max_dets,
            thresholds=tuple(thresholds.tolist()),
            replicates=bootstrap,
            confidence=confidence,
            seed=seed,
            errors=False,
            sweep=False,
        )

        if not self.pipeline:
            _ = self.options.resizing  # refuse now

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep predictions, and without ``ann_file`` the ground truth, of one batch."""
        self.coco.process(data_batch, data_samples)
        for sample, (truth, _) in zip(data_samples if self.pipeline else (), self.coco.results, strict=False):
            truth["seen_scale"] = scale_of(sample)
        self.results += self.coco.results
        self.coco.results.clear()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """All figures of the collected ``results``, see the class."""
        coco, logger = self.coco, MMLogger.get_current_instance()
        coco.dataset_meta = self.dataset_meta
        truths, predictions = zip(*results, strict=True)
        with tempfile.TemporaryDirectory() as folder:
            prefix = coco.outfile_prefix or str(Path(folder) / "results")
            truth_file = self.ann_file or coco.gt_to_coco_json(truths, prefix)
            truth, notes = self._read_truth(truth_file)
            for note in notes if self.ann_file else ():
                logger.warning(note)
            coco.cat_ids, coco.img_ids = truth.category_ids.tolist(), truth.image_ids.tolist()
            files = coco.results2json(predictions, prefix)
            if coco.format_only:
                logger.info(f"results are saved in {Path(prefix).parent}")
                return {}
            figures: dict[str, float] = {}
            options = self._with_scales(truth, truths)
            for metric in self.metrics:
                if metric not in files:
                    raise KeyError(f"{metric} is not in results")
                figures |= self._evaluate(metric, truth, files, options, logger)
        return figures

    def _read_truth(self, path: str) -> tuple[GroundTruth, Notes]:
        """The ground truth of the data set's classes, in the order of the labels, and what is odd about the file."""
        masks = "segm" in self.metrics or self.area == "mask"
        with get_local_path(path, backend_args=self.backend_args if self.ann_file else None) as local:
            truth, notes = read_ground_truth(local, masks=masks, argument="ann_file")
        names = set(self.dataset_meta["classes"])
        kept = [i for i, name in enumerate(truth.category_names) if name in names]
        if self.coco._coco_api is not None:  # the order of CocoMetric's own, which sort_categories changes
            order = self.coco._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
            kept.sort(key=lambda i: order.index(int(truth.category_ids[i])))
        kept_names = tuple(truth.category_names[i] for i in kept)
        return replace(truth, category_ids=truth.category_ids[kept], category_names=kept_names), notes

    def _with_scales(self, truth: GroundTruth, samples: Sequence[dict]) -> Options:
        """The options with what the pipeline did to each picture, if that is asked for."""
        if not self.pipeline:
            return self.options
        scales = {sample["img_id"]: sample["seen_scale"] for sample in samples}
        nothing = (1.0, 1.0)  # of pictures that were not tested
        by_image = np.array([scales.get(image, nothing) for image in truth.image_ids.tolist()]).reshape(-1, 2)
        return replace(self.options, resize=Measured(by_image, "as the test pipeline did"))

    def _evaluate(
        self, metric: str, truth: GroundTruth, files: dict[str, str], options: Options, logger: MMLogger
    ) -> dict[str, float]:
        iou_type = "segm" if metric == "segm" else "bbox"
        area = self.area or ("annotation" if self.ann_file else {"bbox": "box", "segm": "mask"}[iou_type])
        masks = iou_type == "segm" or area == "mask"
        # boxes sized by masks need the file that holds both
        file = files["segm"] if masks and "segm" in files else files[metric]
        run, _ = read_detections(file, truth, masks=masks, name=metric)
        options = replace(options, iou_type=iou_type, area=area)
        if metric == "proposal":
            return self._stock_figures(truth, run, options, RECALLS, class_agnostic=True)
        stock = self._stock_figures(truth, run, options, PRECISIONS)
        results = evaluate(truth, [run], options)
        table = to_markdown(bin_table(results, results.runs[0]))
        logger.info(f"{metric}, {results.area_rule}; {results.edge_rule}\n{table}")
        if truth.file_ids is not None:
            for note in results.notes:
                logger.warning(note)
        figures = {f"{metric}_{name}": value for name, value in stock.items()} | _bin_keys(metric, results)
        if self.classwise:
            classes = results.runs[0].classes
            figures |= {
                f"{name}_precision": _nan(row[0]) for name, row in zip(classes.category_names, classes.ap, strict=True)
            }
        return figures

    def _stock_figures(
        self,
        truth: GroundTruth,
        run: Detections,
        options: Options,
        default: tuple[str, ...],
        class_agnostic: bool = False,
    ) -> dict[str, float]:
        """CocoMetric's own figures, of COCO's sizes whatever the bins are."""
        thresholds = np.asarray(options.thresholds)
        candidates = find_candidates(
            truth, run, options.iou_type, options.area, self.proposal_nums[-1], options.thresholds, class_agnostic
        )
        matches = match(candidates, resolve_bins("coco").bins)

        def figures(max_det: int) -> NDArray[np.float64]:
            return bin_figures(Accumulator(matches, max_det).scores(), thresholds)

        last = figures(self.proposal_nums[-1])
        values = dict(zip(PRECISIONS, (figures(100)[0, 0], *last[0, 1:3], *last[1:, 0]), strict=True))
        recalls = [figures(n)[0, 3] for n in self.proposal_nums[:3]]
        values |= dict(zip(RECALLS, (*recalls, *[np.nan] * (3 - len(recalls)), *last[1:, 3]), strict=True))
        return {name: float(values[name]) for name in self.metric_items or default}


def _bin_keys(metric: str, results: SizeAPResults) -> dict[str, float]:
    keys: dict[str, float] = {}
    for row in results.runs[0].bins[1:]:
        for figure, name in NAMES.items():
            keys[f"{metric}_{name}_{row.bin.name}"] = _nan(getattr(row, figure))
        limits = row.intervals.get("ap")
        if limits:
            keys |= {f"{metric}_mAP_{row.bin.name}_low": _nan(limits.low)}
            keys |= {f"{metric}_mAP_{row.bin.name}_high": _nan(limits.high)}
    return keys


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
