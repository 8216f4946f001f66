"""IoU by region size during validation and testing of mmseg models, in place of its IoUMetric.

Built on mmseg 1.2 ``mmseg/evaluation/metrics/iou_metric.py``, whose figures are unchanged; those of regions come
from `mmms_plugin.size_ap.size_iou`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder
from mmms_plugin.registry import METRICS
from mmms_plugin.report.tables import to_markdown
from mmms_plugin.size_ap import UNITS
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.options import PIPELINE, Options, bins_text, parse_resize, sides_of
from mmms_plugin.size_ap.resizing import Measured, describe_seen, factors_of, scale_of
from mmms_plugin.size_ap.size_iou import (
    MEASURES,
    RegionOptions,
    SizeIoUResults,
    evaluate_regions,
    image_regions,
    join_images,
)

KEYS = {"iou": "region_mIoU", "recall": "region_mRecall", "found": "region_mFound"}


@METRICS.register_module()
class SizeIoUMetric(BaseMetric):
    """mmseg's IoUMetric with IoU and recall of ground-truth regions in named bins of their size.

    Keys are IoUMetric's (``mIoU``, ``aAcc``, ...), and for every bin, 'all' included, ``region_mIoU_BIN``,
    ``region_mRecall_BIN`` and ``region_mFound_BIN`` in per cent, like IoUMetric's; with ``bootstrap`` also
    ``region_mIoU_BIN_low`` and ``_high``. They are NaN if the ground truth has no such region.

    Args:
        ignore_index, iou_metrics, nan_to_num, beta, collect_device, output_dir, format_only, prefix: as IoUMetric
            takes them.
        bins: 'coco', 'tiny', 'ai-tod', 'soda', 'quantiles:N', limits or 'name=low:high,...', also as a list.
        bin_unit: 'side' or 'pixels' (square root of the area, px), 'area' (px²) or 'relative' (square root of the share
            of the picture), of own limits and quantiles.
        resize: sizes in bins are those of regions as the network sees them: 'pipeline' as the test pipeline resized
            each picture, or '2048x512'; None for sizes on disk. There are no tiles: mmseg's networks slide windows over
            the resized picture, in which regions keep that size.
        allow_gaps, allow_overlaps: accept bins that do not border on each other.
        min_area: in px; smaller regions, mostly specks of hand-drawn masks, are left out. 1 keeps all.
        bootstrap: replicates for intervals, 0 for none.
        confidence, seed: of the bootstrap.
        report_dir: folder for ``size_iou.html``, ``.json``, ``.csv``, tables and figures; evaluations replace them.

    Raises:
        UserError: options or bins that do not fit, a folder that cannot be written.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: Sequence[str] = ("mIoU",),
        nan_to_num: int | None = None,
        beta: int = 1,
        collect_device: str = "cpu",
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        bins: str | Sequence[str | float] = "coco",
        bin_unit: str = "side",
        resize: str | Sequence[int] | None = None,
        allow_gaps: bool = False,
        allow_overlaps: bool = False,
        min_area: int = 16,
        bootstrap: int = 0,
        confidence: float = 0.95,
        seed: int = 0,
        report_dir: str | None = None,
    ) -> None:
        from mmseg.evaluation import IoUMetric  # the host, only when used

        super().__init__(collect_device=collect_device, prefix=prefix)
        bins = bins_text(bins)
        if not bins.strip().lower().startswith("quantiles"):
            resolve_bins(bins, bin_unit, None, allow_gaps, allow_overlaps)  # refuse now, not after the first epoch
        if min_area < 1:
            raise UserError(f"min_area={min_area}: must be at least 1 px")
        Options(replicates=bootstrap, confidence=confidence, seed=seed)  # the same limits
        if report_dir:
            check_folder(report_dir, "report_dir")
        self.iou = IoUMetric(ignore_index, list(iou_metrics), nan_to_num, beta, collect_device, output_dir, format_only)
        self.resize = None if resize == PIPELINE else Options(resize=sides_of(resize, parse_resize)).resizing
        self.pipeline = resize == PIPELINE
        of_samples = Measured(np.ones((0, 2)), "as the test pipeline did")
        self.options = RegionOptions(
            bins, bin_unit, allow_gaps, allow_overlaps, min_area, bootstrap, seed, confidence,
            describe_seen(UNITS[bin_unit], of_samples if self.pipeline else self.resize),
        )  # fmt: skip
        self.report_dir = report_dir

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep areas of classes as IoUMetric does, and a short table of every image's regions."""
        self.iou.dataset_meta = self.dataset_meta
        self.iou.process(data_batch, data_samples)
        stock, self.iou.results = self.iou.results, []
        for sample, areas in zip(data_samples if stock else (), stock, strict=True):
            truth, predicted = (sample[key]["data"].squeeze().cpu().numpy() for key in ("gt_sem_seg", "pred_sem_seg"))
            regions = image_regions(truth, predicted, len(self.dataset_meta["classes"]), self.iou.ignore_index)
            self.results.append((areas, regions, self._factor(sample, truth.shape)))

    def _factor(self, sample: dict, shape: tuple[int, int]) -> float:
        """By what the areas of an image's regions are multiplied."""
        resize = Measured(np.array([scale_of(sample)]), PIPELINE) if self.pipeline else self.resize
        factors = factors_of(np.array([shape[::-1]]), UNITS[self.options.bin_unit], resize)
        return 1.0 if factors is None else float(factors[0])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """All figures of the collected ``results``, see the class."""
        stock = self.iou.compute_metrics([areas for areas, _, _ in results])
        if self.iou.format_only:
            return stock
        regions = join_images([part for _, part, _ in results], [factor for _, _, factor in results])
        by_size = evaluate_regions(regions, self.dataset_meta["classes"], self.options)
        from mmms_plugin.size_ap.report.size_iou import bin_table, write_region_report

        rules = "; ".join((by_size.area_rule, by_size.edge_rule, *by_size.notes))
        MMLogger.get_current_instance().info(f"{rules}\n{to_markdown(bin_table(by_size))}")
        if self.report_dir:
            write_region_report(by_size, self.report_dir)
        return {key: float(value) for key, value in stock.items()} | _keys(by_size)


def _keys(results: SizeIoUResults) -> dict[str, float]:
    keys: dict[str, float] = {}
    for row in results.bins:
        keys |= {f"{KEYS[name]}_{row.bin.name}": _percent(getattr(row, name)) for name in MEASURES}
        if limits := row.intervals.get("iou"):
            ends = {"low": limits.low, "high": limits.high}
            keys |= {f"{KEYS['iou']}_{row.bin.name}_{end}": _percent(value) for end, value in ends.items()}
    return keys


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
