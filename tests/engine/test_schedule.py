"""Schedules and picture sizes fitted to the user's data: everything that depends on each other is set together."""

from __future__ import annotations

import pytest
import torch

from mmms_plugin.cli import main
from mmms_plugin.engine.config_edit import dicts_in
from mmms_plugin.engine.config_files import load_config
from mmms_plugin.engine.fitting import misfits
from mmms_plugin.engine.image_size import parse_image_size, set_image_size
from mmms_plugin.engine.schedule import ScheduleOptions, set_schedule
from mmms_plugin.errors import UserError

DETECTOR, SEGMENTER, SMALL = "mask_rcnn_ps_r50_fpn_1x", "deeplabv3_ps_r50_voc12aug", "nuclei/mask_rcnn_ps_r18_nuclei"


def fitted(name: str, pictures: int = 80, world: int = 1, **options):
    config = load_config(name)
    line = set_schedule(config._cfg_dict, ScheduleOptions(**options), pictures, world, str(config.filename))
    return config, line


def numbers(config) -> dict:
    """All that a schedule consists of."""
    keys = ("by_epoch", "begin", "end", "milestones", "T_max", "eta_min")
    schedulers = [{key: one[key] for key in keys if key in one} for one in config.param_scheduler]
    hooks = config.default_hooks
    loop = {
        key: config.train_cfg[key] for key in ("max_epochs", "max_iters", "val_interval") if key in config.train_cfg
    }
    rate = config.optim_wrapper.optimizer.lr
    return dict(schedulers=schedulers, **loop, lr=rate, keep=hooks.checkpoint.interval, log=hooks.logger.interval)


def test_epochs_of_an_epoch_based_config():
    config, line = fitted(DETECTOR, epochs=6)
    assert numbers(config) == dict(
        schedulers=[
            dict(by_epoch=False, begin=0, end=24),  # a tenth of 6 x 40 iterations
            dict(by_epoch=True, begin=0, end=6, milestones=[4, 5]),
        ],
        max_epochs=6, val_interval=1, lr=0.0025, keep=1, log=12,
    )  # fmt: skip
    assert line == (
        "schedule (--epochs 6; 80 pictures): learning rate 0.02 -> 0.0025 (for a batch of 2 in place of 16); length 12 "
        "epochs -> 6 epochs of 40 iterations; warm-up 500 -> 24 iterations; decay at 8, 11 -> 4, 5; evaluation and "
        "checkpoint every epoch; log line every 50 -> 12 iterations"
    )


def test_iterations_of_an_epoch_based_config():
    config, line = fitted(DETECTOR, iters=200, batch_size=4)
    assert numbers(config) == dict(
        schedulers=[
            dict(by_epoch=False, begin=0, end=20),
            dict(by_epoch=False, begin=0, end=200, milestones=[133, 183]),
        ],
        max_iters=200, val_interval=20, lr=0.005, keep=20, log=10,
    )  # fmt: skip
    assert config.train_cfg.type == "IterBasedTrainLoop"
    assert config.train_dataloader.sampler.type == "InfiniteSampler"
    assert config.train_dataloader.batch_size == 4
    assert config.default_hooks.checkpoint.by_epoch is False
    assert config.log_processor.by_epoch is False
    assert "12 epochs -> 200 iterations" in line


@pytest.mark.parametrize(("options", "length"), [(dict(iters=300), 300), (dict(epochs=5), 25), (dict(), 33068)])
def test_poly_decay_of_an_iteration_based_config_ends_with_the_training(options, length):
    config, _ = fitted(SEGMENTER, **options, batch_size=16 if "epochs" in options else 2)
    assert config.train_cfg.max_iters == config.param_scheduler[0].end == length
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.007 if "epochs" in options else 0.007 * 2 / 16)


def test_the_learning_rate_goes_with_the_batch_of_all_processes_unless_it_is_given():
    assert fitted(DETECTOR, world=4, batch_size=4)[0].optim_wrapper.optimizer.lr == 0.02
    assert fitted(DETECTOR, world=4, batch_size=8)[0].optim_wrapper.optimizer.lr == 0.04
    config, line = fitted(DETECTOR, lr=0.3)
    assert config.optim_wrapper.optimizer.lr == 0.3
    assert "learning rate 0.02 -> 0.3;" in line
    assert not config.auto_scale_lr.enable
    rtmdet, line = fitted("mmdet::rtmdet_tiny_8xb32-300e_coco", epochs=30, batch_size=8)
    assert rtmdet.optim_wrapper.optimizer.lr == 0.004 * 8 / 256  # its inherited base_batch_size says 16
    assert rtmdet.param_scheduler[1].eta_min == pytest.approx(0.05 * 0.004 * 8 / 256)
    assert rtmdet.param_scheduler[1].begin == rtmdet.param_scheduler[1].T_max == 15
    assert rtmdet.custom_hooks[1].switch_epoch == 28
    assert "dynamic_intervals" not in rtmdet.train_cfg


def test_a_longer_training_keeps_its_warm_up_and_a_config_that_evaluates_at_its_end_still_does():
    config, _ = fitted(SMALL, iters=400)
    assert numbers(config)["schedulers"] == [
        dict(by_epoch=False, begin=0, end=20),
        dict(by_epoch=False, milestones=[320]),
    ]
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == 400
    assert config.optim_wrapper.optimizer.lr == 5e-4


def test_what_follows_a_warm_up_begins_where_it_now_ends():
    config, _ = fitted("mmdet::yolox_s_8xb8-300e_coco", epochs=30)
    warm_up, cosine, constant = config.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.end, constant.begin, constant.end) == (1, 1, 28, 28, 30)
    demo, _ = fitted("demo/mask_rcnn_ps_r18_shapes", iters=100)
    assert (demo.param_scheduler[0].end, demo.param_scheduler[1].begin, demo.param_scheduler[1].end) == (10, 10, 100)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("demo/mask_rcnn_ps_r18_shapes", dict(iters=1)),
        ("mmdet::yolox_s_8xb8-300e_coco", dict(epochs=1)),
        ("mmdet::rtmdet_tiny_8xb32-300e_coco", dict(epochs=1)),
        ("mmdet::retinanet_r50_fpn_90k_coco", dict(iters=2)),
    ],
)
def test_the_shortest_trainings_still_have_schedulers_that_mmengine_takes(name, options):
    config, _ = fitted(name, **options)
    for scheduler in config.param_scheduler:
        assert 0 <= scheduler.get("begin", 0) < scheduler.get("end", 10**9)
        assert scheduler.get("T_max", 1) >= 1
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == 1
    assert config.default_hooks.logger.interval == 1


@pytest.mark.parametrize(("options", "steps"), [(dict(epochs=1), 1), (dict(iters=1), 2), (dict(iters=50), 50)])
def test_a_one_cycle_schedule_ends_with_the_training(options, steps):
    config, _ = fitted("cifar10/resnext29_small", pictures=6400, **options)
    assert config.param_scheduler.total_steps == steps  # epochs, which mmengine converts, or iterations: two at least


def test_the_rate_reaches_its_value_after_the_shortest_warm_up():
    """mmengine's LinearLR with end=1 would stay at its start factor for the whole training."""
    from mmengine.optim import LinearLR
    from torch.optim import SGD

    config, _ = fitted(DETECTOR, iters=4)
    settings = {key: value for key, value in config.param_scheduler[0].items() if key not in ("type", "_scope_")}
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = LinearLR(optimizer, **settings)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_finetune_chooses_length_and_batch_by_the_number_of_pictures():
    config, line = fitted(SMALL, pictures=100, preset="finetune")
    assert config.train_cfg.max_iters == 60 * 25
    assert config.train_cfg.val_interval == 150
    assert config.default_hooks.checkpoint.save_best == "auto"
    assert "--epochs 60 --batch-size 4 --preset finetune; 100 pictures" in line
    assert fitted(SEGMENTER, pictures=40, preset="finetune")[0].train_dataloader.batch_size == 5
    assert fitted(DETECTOR, pictures=5000, preset="finetune")[0].train_cfg.max_epochs == 12
    assert fitted(DETECTOR, pictures=9, preset="finetune")[0].train_cfg.max_epochs == 100
    own = fitted(DETECTOR, pictures=100, preset="finetune", epochs=3, batch_size=1, lr=0.1)[0]
    assert (own.train_cfg.max_epochs, own.train_dataloader.batch_size, own.optim_wrapper.optimizer.lr) == (3, 1, 0.1)
    assert own.optim_wrapper.clip_grad.max_norm == 35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(epochs=1, iters=1), "--epochs and --iters: give one of them"),
        (dict(epochs=0), "--epochs 0: allowed are integers >= 1"),
        (dict(batch_size=-1), "--batch-size -1: allowed are integers >= 1"),
        (dict(lr=float("nan")), "--lr nan: allowed are numbers above 0"),
        (dict(preset="fine"), "--preset fine: allowed are finetune"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        ScheduleOptions(**options)


def test_a_hook_that_counts_epochs_is_not_left_behind():
    with pytest.raises(UserError, match="--iters: PipelineSwitchHook of this config counts epochs, give --epochs"):
        fitted("mmdet::rtmdet_tiny_8xb32-300e_coco", iters=30)


def test_a_schedule_that_does_not_fit_is_remarked_on_when_nobody_asks():
    config = load_config(DETECTOR)
    warm_up, rate = misfits(config, per_epoch=40, total=480, world=1)
    assert "the warm-up takes 500 iterations and the training has 480 (40 an epoch)" in warm_up
    assert "the learning rate is for batches of 16 pictures and these have 2" in rate
    assert misfits(config, per_epoch=7330, total=87960, world=8) == []
    assert misfits(fitted(DETECTOR, epochs=2)[0], per_epoch=40, total=80, world=1) == []


def sizes(config, *keys: str) -> set:
    """All values of keys in the pipelines."""
    parts = dicts_in([config.train_dataloader, config.test_dataloader, config.get("custom_hooks")])
    plain = lambda value: tuple(map(plain, value)) if isinstance(value, list | tuple) else value  # noqa: E731
    return {plain(part[key]) for part in parts for key in keys if key in part}


def test_every_size_goes_with_the_image_size():
    config = load_config(DETECTOR)
    assert set_image_size(config._cfg_dict, parse_image_size("640")) == "pictures 1333x800 -> 640x640 px"
    assert sizes(config, "scale") == {(640, 640)}
    config = load_config(SEGMENTER)
    set_image_size(config._cfg_dict, (257, 257))
    assert sizes(config, "scale", "crop_size") == {(257, 257), (1026, 257), (1026, 256)}
    assert tuple(config.model.data_preprocessor.size) == (257, 257)
    config = load_config("mmdet::dino-4scale_r50_8xb2-12e_coco")  # pairs with the shorter side first
    set_image_size(config._cfg_dict, (667, 400))
    assert any((240, 667) in scales for scales in sizes(config, "scales"))
    config = load_config("mmdet::rtmdet_tiny_8xb32-300e_coco")
    set_image_size(config._cfg_dict, (320, 320))
    assert sizes(config, "img_scale", "size", "crop_size") == {(320, 320)}
    assert sizes(config, "scale") == {(320, 320), (640, 640)}
    config = load_config("imagenet/ps_resnet50")
    set_image_size(config._cfg_dict, (112, 112))
    assert sizes(config, "scale", "crop_size") == {112, 128}
    for text in ("640x", "axb", "8", "1x2x3", ""):
        with pytest.raises(UserError, match="expected a side in px"):
            parse_image_size(text)


def test_train_reports_in_one_line_what_it_changed(shapes, tmp_path, capfd):
    loaders = [f"{split}_dataloader.{key}" for split in ("train", "val")
               for key in ("num_workers=0", "persistent_workers=False")]  # fmt: skip
    arguments = [
        "train",
        "demo/mask_rcnn_ps_r18_shapes",
        "--coco-dir",
        str(shapes),
        "--work-dir",
        str(tmp_path / "run"),
    ]
    options = ["--iters", "2", "--batch-size", "2", "--image-size", "64", "--cfg-options", "custom_hooks=[]", *loaders]
    assert main([*arguments, *options, "train_cfg.val_interval=9"]) == 0
    printed = capfd.readouterr()
    log = printed.out + printed.err
    assert "schedule (--iters 2 --batch-size 2; 4 pictures): batch 8 -> 2; learning rate 0.0015 -> 0.000375" in log
    assert "--image-size: pictures 192x192 -> 64x64 px" in log
    kept = load_config(str(tmp_path / "run/mask_rcnn_ps_r18_shapes.py"))
    assert kept.train_cfg == dict(type="IterBasedTrainLoop", max_iters=2, val_interval=9)  # given explicitly
    assert kept.param_scheduler[1].end == 2
    assert main([*arguments, "--auto-scale-lr", "--lr", "0.1"]) == 2
