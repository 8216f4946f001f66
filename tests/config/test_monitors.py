"""A metric that the validation does not report is named before training, whatever part of a config follows it."""

from __future__ import annotations

from typing import Any

import pytest

from mmms_plugin.config.monitors import REPORTED, check_monitors
from mmms_plugin.errors import UserError


def config_of(evaluator: Any, scope: str = "mmdet", **parts: Any) -> dict[str, Any]:
    return dict(default_scope=scope, val_evaluator=evaluator, **parts)


def following(name: Any, place: str) -> dict[str, Any]:
    if place == "default_hooks.checkpoint.save_best":
        return dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best=name), logger=None))
    if place == "custom_hooks.1.monitor":
        return dict(custom_hooks=[dict(type="X"), dict(type="mmengine.EarlyStoppingHook", monitor=name)])
    return dict(param_scheduler=[dict(type="LinearLR"), dict(type="ReduceOnPlateauLR", monitor=name)])


@pytest.mark.parametrize(
    "place", ["default_hooks.checkpoint.save_best", "custom_hooks.1.monitor", "param_scheduler.1.monitor"]
)
@pytest.mark.parametrize(
    ("evaluator", "right", "wrong"),
    [
        (dict(type="CocoMetric"), ["coco/bbox_mAP", "coco/bbox_mAP_50", "coco/bbox_mAP_l"],
         ["coco/bbox_mAPP", "bbox_mAP", "coco/segm_mAP", "coco/bbox_map", "loss", "coco/cat_precision", "coco/*"]),
        (dict(type="mmdet.CocoMetric", metric=["bbox", "segm"], classwise=True, prefix="val"),
         ["val/segm_mAP_s", "val/cat_precision"], ["coco/segm_mAP", "val/proposal_mAP"]),
        (dict(type="CocoMetric", metric="proposal"), ["coco/AR@100", "coco/AR_s@1000"], ["coco/proposal_AR@100"]),
        (dict(type="CocoMetric", metric="proposal_fast", proposal_nums=[10]), ["coco/AR@10"], ["coco/AR@100"]),
        (dict(type="CocoMetric", metric_items=["mAP_50"]), ["coco/bbox_mAP_50"], ["coco/bbox_mAP"]),
        (dict(type="mmms_plugin.SizeAPMetric", bins="small=0:20,rest=20:", bootstrap=9),
         ["coco/bbox_mAP", "coco/bbox_AR_rest", "coco/bbox_mAP_small_low"], ["coco/bbox_mAP_large", "coco/bbox_AR_s"]),
        (dict(type="mmms_plugin.SizeAPMetric", bins=["quantiles:4"]), ["coco/bbox_mAP_q4"], ["coco/bbox_mAP_q5"]),
        ([dict(type="LVISMetric"), dict(type="VOCMetric", metric="mAP", iou_thrs=[0.5, 0.75])],
         ["lvis/bbox_APr", "pascal_voc/mAP", "pascal_voc/AP75"], ["lvis/bbox_mAP", "pascal_voc/AP60"]),
        (dict(type="VOCMetric", metric="recall"), ["pascal_voc/AR@100"], ["pascal_voc/mAP"]),
        (dict(type="mmseg.IoUMetric", iou_metrics=["mIoU", "mFscore"]), ["mIoU", "aAcc", "mAcc", "mFscore", "mRecall"],
         ["mIou", "iou/mIoU", "mDice"]),
        (dict(type="mmms_plugin.SizeIoUMetric"),
         ["mIoU", "region_mIoU_all", "region_mFound_small"], ["region_mIoU_tiny"]),
        (dict(type="mmpretrain.Accuracy", topk=(1, 5)), ["accuracy/top1", "accuracy/top5"], ["accuracy/top_1", "top1"]),
        (dict(type="mmpretrain.Accuracy", thrs=(0.5, None)),
         ["accuracy/top1_thr-0.50", "accuracy/top1_no-thr"], ["accuracy/top1"]),
        (dict(type="mmpretrain.SingleLabelMetric"), ["single-label/f1-score"], ["single-label/f1_score"]),
        (dict(type="mmpretrain.SingleLabelMetric", average="micro"),
         ["single-label/recall_micro"], ["single-label/recall"]),
        (dict(type="mmpretrain.MultiLabelMetric", topk=3), ["multi-label/precision_top3"], ["multi-label/precision"]),
        ([dict(type="mmpretrain.MultiLabelMetric", average=None), dict(type="mmpretrain.AveragePrecision")],
         ["multi-label/mAP"], ["multi-label/recall", "multi-label/recall_classwise"]),  # lists
        (dict(type="mmpretrain.AveragePrecision"), ["multi-label/mAP"], ["multi-label/AP_classwise"]),
        (dict(type="mmms_plugin.ClassMetric", topk=2), ["accuracy/top2"], ["accuracy/top1"]),
        (dict(type="mmms_plugin.ClassMetric"), ["accuracy/top1", "accuracy/exit3_top1"], ["accuracy/top2"]),
        (dict(type="mmms_plugin.LabelsMetric"),
         ["labels/mAP", "labels/F1_overall_MS", "labels/recall_large"], ["labels/F1"]),
        (dict(type="CityScapesMetric"), ["cityscapes/mAP", "cityscapes/AP@50"], ["cityscapes/AP50"]),
    ],
)  # fmt: skip
def test_a_followed_metric_is_one_that_is_reported(evaluator: Any, right: list, wrong: list, place: str) -> None:
    for name in right:
        check_monitors(config_of(evaluator, **following(name, place)))
    for name in wrong:
        with pytest.raises(UserError) as caught:
            check_monitors(config_of(evaluator, **following(name, place)))
        text = str(caught.value)
        assert text.startswith(f"{place}={name!r}: the validation does not report it; ")
        assert "; allowed are " in text


def test_the_message_names_the_nearest() -> None:
    parts = following(["coco/bbox_mAP", "coco/bbox_mAP50"], "default_hooks.checkpoint.save_best")
    with pytest.raises(UserError, match=r"the nearest are coco/bbox_mAP_50, coco/bbox_mAP, "):
        check_monitors(config_of(dict(type="CocoMetric"), **parts))
    with pytest.raises(
        UserError, match=r"^param_scheduler.0.monitor='loss': the validation does not report it; allowed "
    ):
        check_monitors(config_of(dict(type="CocoMetric"), param_scheduler=dict(type="ReduceOnPlateauLR")))


def test_nothing_is_said_of_metrics_that_are_not_known() -> None:
    wrong = following("anything", "default_hooks.checkpoint.save_best")
    for evaluator in (None, dict(type="Mine"), [dict(type="CocoMetric"), dict(type="mmpose.CocoMetric")],
                      dict(type="MultiDatasetsEvaluator", metrics=[dict(type="CocoMetric")])):  # fmt: skip
        check_monitors(config_of(evaluator, **wrong))
    check_monitors(config_of(dict(type="CocoMetric"), scope="mmpose", **wrong))
    for name in ("auto", None, ["auto"]):
        check_monitors(config_of(dict(type="CocoMetric"), **following(name, "default_hooks.checkpoint.save_best")))
    auto = following("auto", "default_hooks.checkpoint.save_best")
    with pytest.raises(
        UserError, match=r"^default_hooks.checkpoint.save_best='auto': stands for lvis/bbox_AP, of which"
    ):
        check_monitors(config_of(dict(type="LVISMetric"), **auto))
    auto["default_hooks"]["checkpoint"]["rule"] = "greater"
    check_monitors(config_of(dict(type="LVISMetric"), **auto))
    lists = dict(type="mmpretrain.SingleLabelMetric", average=None)
    with pytest.raises(UserError, match=r"^default_hooks.checkpoint.save_best='auto': the validation reports lists of"):
        check_monitors(config_of(lists, **following("auto", "default_hooks.checkpoint.save_best")))
    check_monitors(config_of(dict(type="CocoMetric"), default_hooks=None, custom_hooks=None, param_scheduler=None))


def test_prefixes_are_those_of_the_metrics_themselves() -> None:
    import mmdet.evaluation
    import mmseg.evaluation

    import mmms_plugin.evaluation

    modules = {"mmdet": mmdet.evaluation, "mmseg": mmseg.evaluation, "mmms_plugin": mmms_plugin.evaluation}
    for name, (prefix, _) in REPORTED.items():
        scope, _, kind = name.partition(".")
        if scope in modules:
            assert getattr(modules[scope], kind).default_prefix == prefix, name
            evaluator = dict(type=getattr(modules[scope], kind))  # as in configs of the new style
            with pytest.raises(UserError):
                check_monitors(config_of(evaluator, **following("x", "custom_hooks.1.monitor")))
