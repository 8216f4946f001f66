"""Early stopping, averaged weights, accumulation, frozen stages and a share of the data, added to any config."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from mmms_plugin.config import techniques
from mmms_plugin.config.files import load_config
from mmms_plugin.config.monitors import check_monitors
from mmms_plugin.config.schedule import ScheduleOptions, count_pictures, set_schedule
from mmms_plugin.config.techniques import TechniqueOptions, use_techniques
from mmms_plugin.errors import UserError
from mmms_plugin.train.launch import prepare_config
from mmms_plugin.train.options import LaunchOptions

DETECTOR, SEGMENTER, CLASSIFIER = "mask_rcnn_ps_r50_fpn_1x", "deeplabv3_ps_r50_voc12aug", "imagenet/ps_resnet50"
DEMO = "demo/mask_rcnn_ps_r18_shapes"


def changed(name: str, **options) -> tuple[Config, list[str]]:
    config = load_config(name)
    return config, use_techniques(config, TechniqueOptions(**options))


@pytest.mark.parametrize(
    ("name", "metric"), [(DETECTOR, "coco/bbox_mAP"), (SEGMENTER, "mIoU"), (CLASSIFIER, "accuracy/top1")]
)
def test_early_stopping_follows_what_the_best_checkpoint_is_chosen_by(name: str, metric: str) -> None:
    config = load_config(name)
    config.default_hooks.checkpoint.pop("save_best", None)
    (remark,) = use_techniques(config, TechniqueOptions(patience=3))
    assert remark == f"--patience 3: stops after 3 evaluations without a better {metric}"
    hook = config.custom_hooks[-1]
    assert hook == dict(type="EarlyStoppingHook", monitor=metric, min_delta=1e-6, patience=3)
    assert config.default_hooks.checkpoint.save_best == metric
    check_monitors(config)


def test_a_config_s_own_choices_stay() -> None:
    config = load_config(DETECTOR)
    config.default_hooks.checkpoint.update(save_best=["coco/segm_mAP", "x"], rule="greater")
    use_techniques(config, TechniqueOptions(patience=3))
    assert config.custom_hooks[-1].monitor == "coco/segm_mAP"
    assert config.default_hooks.checkpoint.save_best == ["coco/segm_mAP", "x"]
    config.default_hooks.stop = dict(type="mmengine.EarlyStoppingHook", monitor="coco/bbox_mAP_50", patience=9)
    config.custom_hooks = [dict(type="EMAHook", momentum=0.1)]
    _, second = use_techniques(config, TechniqueOptions(patience=2, ema=True))
    assert second == "--patience 2: stops after 2 evaluations without a better coco/bbox_mAP_50"
    assert config.default_hooks.stop.patience == 2
    assert config.custom_hooks == [dict(type="EMAHook", momentum=0.1)]


def test_averaged_weights_and_frozen_stages(monkeypatch) -> None:
    config, remarks = changed(DETECTOR, ema=True, freeze=2)
    assert remarks == [
        "--freeze 2: the backbone's stem and first 2 stages are not trained",
        "--ema: averaged weights are evaluated and saved",
    ]
    assert config.model.backbone.frozen_stages == 2
    assert config.custom_hooks[-1].type == "EMAHook"
    said: list[str] = []
    monkeypatch.setattr("mmengine.logging.print_log", lambda message, **_: said.append(message))
    assert changed(DETECTOR, freeze=0)[1] == ["--freeze 0: the backbone's stem is not trained"]
    assert not any("Failed" in message for message in said), (
        "mmengine's remarks about registries that a host does not have"
    )
    assert changed(DETECTOR)[1] == []


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        (dict(patience=2), {"val_evaluator": None}, "--patience 2: this config has no validation to follow"),
        (dict(patience=2), {"val_evaluator": dict(type="Own")}, "--patience: which metric to follow is not known for"),
        (
            dict(freeze=1),
            {"model.backbone.type": "mmpretrain.LeNet5"},
            "--freeze: the backbone, mmpretrain.LeNet5, has",
        ),
        (dict(freeze=5), {"model.backbone.type": "ResNet"}, "--freeze 5: the backbone has 4 stages"),
    ],
)
def test_a_config_without_a_place_for_an_option_is_refused(options: dict, changes: dict, message: str) -> None:
    config = load_config(DETECTOR)
    config.default_hooks.checkpoint.pop("save_best", None)
    config.merge_from_dict(changes)
    with pytest.raises(UserError) as caught:
        use_techniques(config, TechniqueOptions(**options))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(patience=0), "--patience 0: must be an integer of at least 1"),
        (dict(freeze=-1), "--freeze -1: must be an integer of at least 0"),
        (dict(fraction=0.0), "--fraction 0.0: must be a number above 0 and at most 1"),
        (dict(fraction=1.5), "--fraction 1.5: must be a number above 0 and at most 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TechniqueOptions(**options)


def test_loggers_are_added_to_the_config_s_own(monkeypatch) -> None:
    monkeypatch.setattr(techniques, "find_spec", lambda name: None if name == "aim" else name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    with pytest.raises(UserError, match=r"^--logger aim: aim is not installed; install it with: pip install aim"):
        TechniqueOptions(logger=("wandb", "aim"))
    with pytest.raises(UserError, match=r"^--logger excel: allowed are tensorboard, mlflow, wandb, clearml"):
        TechniqueOptions(logger=("excel",))
    config = load_config(DETECTOR)
    config.work_dir = "runs/a"
    for _ in range(2):  # the second time, they are there
        use_techniques(config, TechniqueOptions(logger=("tensorboard", "mlflow", "wandb")))
    assert [backend["type"] for backend in config.visualizer.vis_backends] == [
        "LocalVisBackend", "TensorboardVisBackend", "MLflowVisBackend", "WandbVisBackend",
    ]  # fmt: skip
    assert config.visualizer.vis_backends[2] == dict(
        type="MLflowVisBackend", run_name="a", exp_name="mmms", tracking_uri="http://localhost:5000"
    )
    config.visualizer = None
    use_techniques(config, TechniqueOptions(logger=("neptune",)))
    assert [backend["type"] for backend in config.visualizer.vis_backends] == ["LocalVisBackend", "NeptuneVisBackend"]
    for kind, _ in techniques.LOGGERS.values():
        assert VISBACKENDS.get(kind) is not None


def test_a_device_and_a_launcher_are_refused_together() -> None:
    with pytest.raises(UserError, match=r"^--device cuda:1: with --launcher every process has the device of its local"):
        LaunchOptions(config="c", device="cuda:1", launcher="pytorch")
    with pytest.raises(UserError, match=r"^--workers -1: must be an integer of at least 0"):
        LaunchOptions(config="c", workers=-1)


def test_accumulated_batches_count_for_the_learning_rate() -> None:
    config = load_config(DETECTOR)
    line = set_schedule(config._cfg_dict, ScheduleOptions(accumulate=4), 80, 1, str(config.filename))
    assert config.optim_wrapper.accumulative_counts == 4
    assert config.optim_wrapper.optimizer.lr == 0.01  # 0.02 is for 16 pictures, a step has 4 x 2
    assert "batches per step 1 -> 4; learning rate 0.02 -> 0.01 (for a batch of 8 in place of 16)" in line
    unknown = load_config(DETECTOR)  # what its rate is for is not stated: its own batches
    unknown.pop("auto_scale_lr")
    for count, rate in ((4, 0.08), (2, 0.04)):
        set_schedule(unknown._cfg_dict, ScheduleOptions(accumulate=count), 80)
        assert unknown.optim_wrapper.optimizer.lr == rate


def test_a_share_of_the_pictures_is_random_and_holds_smaller_shares(shapes, tmp_path) -> None:
    options = LaunchOptions(config=DEMO, coco_dir=str(shapes), work_dir=str(tmp_path), workers=0)
    config, _ = prepare_config(options)
    assert [config[f"{split}_dataloader"].num_workers for split in ("train", "val", "test")] == [0] * 3
    counts, pictures = [], []
    for share in (0.01, 0.5, 0.75, 1):
        part = copy.deepcopy(config)
        use_techniques(part, TechniqueOptions(fraction=share))
        counts.append(count_pictures(part))
        pictures.append({info["img_path"] for info in _infos(part)})
    assert counts == [1, 2, 3, 4]
    assert all(fewer < more for fewer, more in pairwise(pictures))
    assert count_pictures(part, "val") == 2
    options.techniques, options.schedule = TechniqueOptions(fraction=0.5), ScheduleOptions(epochs=4, batch_size=1)
    config, remarks = prepare_config(options)
    assert config.train_cfg.max_iters == 8
    assert any("; 2 pictures)" in remark for remark in remarks)


def _infos(config: Config) -> list[dict]:
    from mmengine.registry import DATASETS

    dataset = DATASETS.build(config.train_dataloader.dataset)
    return [dataset.get_data_info(i) for i in range(len(dataset))]
