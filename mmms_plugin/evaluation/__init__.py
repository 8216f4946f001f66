"""Metrics that hosts call during validation and testing."""

from mmms_plugin.evaluation.classification import ClassMetric, LabelsMetric
from mmms_plugin.evaluation.size_ap_metric import SizeAPMetric
from mmms_plugin.evaluation.size_iou_metric import SizeIoUMetric

__all__ = ["ClassMetric", "LabelsMetric", "SizeAPMetric", "SizeIoUMetric"]
