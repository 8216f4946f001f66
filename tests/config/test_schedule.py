"""Schedules and picture sizes fitted to the user's data: everything that depends on each other is set together."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmms_plugin.commands import main
from mmms_plugin.config.edit import dicts_in
from mmms_plugin.config.files import load_config
from mmms_plugin.config.image_size import own_size, parse_image_size, set_image_size
from mmms_plugin.config.schedule import ScheduleOptions, count_pictures, log_as_the_loop_counts, set_schedule
from mmms_plugin.errors import UserError
from mmms_plugin.train.hooks import misfits
from mmms_plugin.train.processes import world_size

DETECTOR, SEGMENTER, SMALL = "mask_rcnn_ps_r50_fpn_1x", "deeplabv3_ps_r50_voc12aug", "nuclei/mask_rcnn_ps_r18_nuclei"


def fitted(name: str, pictures: int = 80, world: int = 1, **options):
    config = load_config(name)
    line = set_schedule(config._cfg_dict, ScheduleOptions(**options), pictures, world, str(config.filename))
    return config, line


def numbers(config) -> dict:
    """All that a schedule consists of."""
    keys = ("by_epoch", "begin", "end", "milestones", "T_max", "eta_min")
    schedulers = [{key: part[key] for key in keys if key in part} for part in config.param_scheduler]
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


@pytest.mark.parametrize(("options", "length"), [(dict(iters=300), 300), (dict(epochs=5), 25), (dict(), 33100)])
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
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == next(iter(options.values()))
    assert config.default_hooks.logger.interval == 1


@pytest.mark.parametrize(("options", "steps"), [(dict(epochs=1), 1), (dict(iters=1), 2), (dict(iters=50), 50)])
def test_a_one_cycle_schedule_ends_with_the_training(options, steps):
    config, _ = fitted("cifar10/resnext29_small", pictures=6400, **options)
    assert config.param_scheduler.total_steps == steps  # epochs, which mmengine converts, or iterations: two at least


EPOCHS, ITERATIONS = dict(max_epochs=12, val_interval=1), dict(max_iters=1000, val_interval=100)


def small_config(loop: dict[str, Any], *schedulers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """All of a config that a schedule depends on; 40 pictures are 10 iterations an epoch."""
    return dict(
        train_dataloader=dict(batch_size=4), train_cfg=dict(loop), param_scheduler=list(copy.deepcopy(schedulers)),
        optim_wrapper=dict(optimizer=dict(lr=0.1)),
        default_hooks=dict(checkpoint=dict(interval=1), logger=dict(interval=50)),
    ) | more  # fmt: skip


COSINE = dict(type="CosineAnnealingLR", begin=1, end=12, T_max=11)
WARM_UP = dict(type="LinearLR", by_epoch=True, begin=0, end=5)
ITER_WARM_UP = dict(type="LinearLR", by_epoch=False, begin=0, end=500)
STEP_WARM_UP = dict(type="ConstantLR", by_epoch=False, end=5)
STRETCHED: list[tuple[dict, list[dict], dict, list[dict]]] = [
    (EPOCHS, [COSINE], dict(epochs=7), [dict(begin=0, end=7, T_max=7)]),  # one period, from begin to end
    (EPOCHS, [COSINE | dict(T_max=5)], dict(epochs=7), [dict(begin=0, end=7, T_max=2)]),  # several periods
    (EPOCHS, [dict(type="CosineAnnealingLR", T_max=12)], dict(epochs=7), [dict(T_max=7)]),
    (EPOCHS, [dict(type="CosineAnnealingLR", T_max=11)], dict(epochs=1), [dict(T_max=1)]),
    (EPOCHS, [dict(type="StepLR", step_size=4)], dict(epochs=6), [dict(step_size=2)]),
    (EPOCHS, [dict(type="StepLR", step_size=4)], dict(epochs=1), [dict(step_size=1)]),
    (EPOCHS, [dict(type="OneCycleLR", total_steps=12)], dict(epochs=1), [dict(total_steps=2)]),
    (EPOCHS, [dict(type="MultiStepLR", milestones=[2, 8, 11])], dict(epochs=3), [dict(milestones=[2])]),
    (EPOCHS, [dict(type="MultiStepLR", milestones=[6, 12])], dict(epochs=6), [dict(milestones=[3])]),
    (EPOCHS, [dict(type="MultiStepLR", milestones=[8, 11])], dict(epochs=1), [dict(milestones=[])]),
    (
        EPOCHS, [WARM_UP, COSINE | dict(begin=5, T_max=7)], dict(epochs=6),
        [dict(begin=0, end=2), dict(begin=2, end=6, T_max=4)],
    ),
    (
        EPOCHS, [WARM_UP, COSINE | dict(begin=5, T_max=7)], dict(epochs=2),
        [dict(begin=0, end=2), dict(begin=1, end=2, T_max=1)],
    ),
    (EPOCHS, [WARM_UP | dict(convert_to_iter_based=True)], dict(epochs=2), [dict(begin=0, end=1)]),
    (EPOCHS, [WARM_UP | dict(begin=2)], dict(epochs=6), [dict(begin=1, end=2)]),  # not at the start: no warm-up
    (EPOCHS, [dict(ITER_WARM_UP, end=30)], dict(epochs=12), [dict(begin=0, end=12)]),
    (ITERATIONS, [ITER_WARM_UP, dict(type="PolyLR", by_epoch=False, begin=500, end=1000)], dict(iters=100),
     [dict(begin=0, end=10), dict(begin=10, end=100)]),
    (ITERATIONS, [ITER_WARM_UP | dict(begin=100)], dict(iters=100), [dict(begin=10, end=50)]),
    (ITERATIONS, [STEP_WARM_UP], dict(iters=100), [dict(end=5)]),
    (ITERATIONS, [STEP_WARM_UP], dict(iters=10), [dict(end=2)]),
    (ITERATIONS, [dict(type="PolyLR", by_epoch=False, end=1000)], dict(epochs=3), [dict(end=30)]),
    (ITERATIONS, [dict(type="PolyLR", end=6)], dict(iters=100), [dict(end=6)]),  # counts epochs, as nothing else does
    (EPOCHS, [dict(type="PolyLR", begin=0, end=12, eta_min=0.02)], dict(epochs=6, batch_size=8),
     [dict(begin=0, end=6, eta_min=0.04)]),
    (EPOCHS, [dict(type="OneCycleLR", eta_max=0.5)], dict(batch_size=2), [dict(eta_max=0.25)]),
]  # fmt: skip


@pytest.mark.parametrize(("loop", "schedulers", "options", "expected"), STRETCHED, ids=range(len(STRETCHED)))
def test_every_count_of_a_scheduler_keeps_its_share_of_the_training(loop, schedulers, options, expected):
    config = small_config(loop, *schedulers)
    set_schedule(config, ScheduleOptions(**options), 40)
    kept = ("type", "by_epoch", "convert_to_iter_based")
    assert [{k: v for k, v in one.items() if k not in kept} for one in config["param_scheduler"]] == expected
    assert [one["type"] for one in config["param_scheduler"]] == [one["type"] for one in schedulers]


def test_evaluations_are_logged_at_their_iteration_unless_the_config_says_otherwise():
    iterations, epochs = small_config(ITERATIONS), small_config(EPOCHS)
    del iterations["default_hooks"]
    for config in (iterations, epochs):
        log_as_the_loop_counts(config)
    assert iterations["default_hooks"]["logger"] == dict(type="LoggerHook", log_metric_by_epoch=False)
    assert "log_metric_by_epoch" not in epochs["default_hooks"].get("logger", {})
    for logger in (None, dict(log_metric_by_epoch=True)):
        config = small_config(ITERATIONS, default_hooks=dict(logger=logger))
        log_as_the_loop_counts(config)
        assert config["default_hooks"] == dict(logger=logger)


def test_what_a_schedule_changes_beside_its_schedulers():
    config = small_config(EPOCHS | dict(val_begin=6), dict(type="PolyLR", begin=0, end=12))
    line = set_schedule(config, ScheduleOptions(epochs=24), 41)
    assert config["train_cfg"] == dict(max_epochs=24, val_interval=2, val_begin=12)
    assert config["default_hooks"] == dict(checkpoint=dict(interval=2), logger=dict(interval=11))
    assert line == (
        "schedule (--epochs 24; 41 pictures): length 12 epochs -> 24 epochs of 11 iterations; PolyLR until 12 -> 24; "
        "evaluation and checkpoint every 2 epochs; log line every 50 -> 11 iterations"
    )
    config = small_config(ITERATIONS, default_hooks=dict(logger=dict(type="LoggerHook")))
    line = set_schedule(config, ScheduleOptions(iters=100), 40)
    assert config["train_cfg"] == dict(max_iters=100, val_interval=10)
    assert config["default_hooks"] == dict(logger=dict(type="LoggerHook", interval=5))  # mmengine's own is 10
    assert line.endswith("every 10 iterations; log line every 10 -> 5 iterations")
    config = small_config(EPOCHS | dict(val_interval=12), default_hooks=None)  # evaluates at the end only
    set_schedule(config, ScheduleOptions(epochs=20), 40)
    assert config["train_cfg"] == dict(max_epochs=20, val_interval=20)
    config = small_config(EPOCHS | dict(val_interval=11))
    set_schedule(config, ScheduleOptions(epochs=20), 40)
    assert config["train_cfg"]["val_interval"] == 2
    config = small_config(EPOCHS | dict(val_interval=7), dict(type="MultiStepLR", milestones=[8]))
    line = set_schedule(config, ScheduleOptions(batch_size=4), 1000)
    assert line == "schedule (--batch-size 4; 1000 pictures): nothing to change"
    assert config["train_cfg"]["val_interval"] == 7
    line = set_schedule(small_config(EPOCHS, dict(type="MultiStepLR", milestones=[8])), ScheduleOptions(epochs=1), 1)
    assert (
        "12 epochs -> 1 epochs of 1 iterations; decay at 8 -> no point; evaluation and checkpoint every epoch" in line
    )


@pytest.mark.parametrize(
    ("loop", "pictures", "options", "steps"),
    [
        (EPOCHS, 400, dict(iters=40), [40]),  # less than a pass
        (EPOCHS, 400, dict(iters=140), [140]),  # an evaluation at 100 would be 40 iterations before the last one
        (EPOCHS, 400, dict(iters=250), [125, 250]),
        (EPOCHS, 40, dict(iters=1000), list(range(100, 1001, 100))),
        (EPOCHS, 40, dict(iters=105), list(range(15, 106, 15))),
        (ITERATIONS, 400, dict(epochs=2), [100, 200]),
        (ITERATIONS, 400, dict(iters=40, val_every=4), list(range(4, 41, 4))),
        (ITERATIONS, 400, dict(iters=40, val_every=41), [40]),
        (EPOCHS, 400, dict(epochs=7, val_every=3), [3, 6, 7]),
        (EPOCHS, 400, dict(val_every=5), [5, 10, 12]),
        (EPOCHS | dict(val_interval=12), 400, dict(epochs=4, val_every=2), [2, 4]),
        (EPOCHS | dict(dynamic_intervals=[(3, 1)]), 400, dict(val_every=6), [6, 12]),
    ],
)
def test_evaluations_come_at_most_once_per_pass_or_as_the_user_says(loop, pictures, options, steps):
    config = small_config(loop, default_hooks=dict(checkpoint=dict(interval=1)))
    set_schedule(config, ScheduleOptions(**options), pictures)
    loop = config["train_cfg"]
    length, interval = loop.get("max_epochs") or loop.get("max_iters"), loop["val_interval"]
    assert [step for step in range(1, length + 1) if step % interval == 0 or step == length] == steps
    assert config["default_hooks"]["checkpoint"]["interval"] == interval
    assert "dynamic_intervals" not in loop


def test_val_every_alone_changes_nothing_else():
    config = small_config(EPOCHS, ITER_WARM_UP, auto_scale_lr=dict(base_batch_size=64))
    config["default_hooks"] = dict(checkpoint=dict(interval=1, by_epoch=False), logger=dict(interval=5))
    before = copy.deepcopy(config)
    line = set_schedule(config, ScheduleOptions(val_every=3), 40)
    assert line == "schedule (--val-every 3; 40 pictures): evaluation and checkpoint every 3 epochs"
    assert config["default_hooks"]["checkpoint"] == dict(interval=30, by_epoch=False)  # which counts iterations
    before["train_cfg"]["val_interval"], before["default_hooks"] = 3, config["default_hooks"]
    assert config == before


def test_iterations_switch_everything_that_counted_epochs():
    config = small_config(EPOCHS, dict(type="OneCycleLR", total_steps=12, convert_to_iter_based=True))
    config["log_processor"] = dict(window_size=9)
    set_schedule(config, ScheduleOptions(iters=60), 40)
    assert config["param_scheduler"] == [dict(type="OneCycleLR", total_steps=60, by_epoch=False)]
    assert config["train_dataloader"]["sampler"] == dict(type="InfiniteSampler", shuffle=True)
    assert config["default_hooks"]["checkpoint"] == dict(interval=10, by_epoch=False)
    assert config["default_hooks"]["logger"] == dict(interval=3, log_metric_by_epoch=False)
    assert config["log_processor"] == dict(window_size=9, by_epoch=False)


def test_the_batch_that_a_rate_is_for_is_the_config_s_own_where_it_names_none(monkeypatch):
    config = small_config(EPOCHS)
    line = set_schedule(config, ScheduleOptions(batch_size=8), 40, world=2)
    assert config["optim_wrapper"]["optimizer"]["lr"] == 0.2
    assert "learning rate 0.1 -> 0.2 (for a batch of 16 in place of 8)" in line
    config = small_config(EPOCHS, auto_scale_lr=dict(base_batch_size=16, enable=True))
    set_schedule(config, ScheduleOptions(epochs=12), 40)
    assert config["optim_wrapper"]["optimizer"]["lr"] == 0.025
    assert config["auto_scale_lr"] == dict(base_batch_size=16, enable=False, fitted=True)  # mmengine leaves it alone
    config = small_config(EPOCHS, optim_wrapper=dict(optimizer=dict(type="Prodigy")))
    set_schedule(config, ScheduleOptions(batch_size=8), 40)
    assert config["optim_wrapper"] == dict(optimizer=dict(type="Prodigy"))
    with pytest.raises(UserError, match=r"--lr: the config has no optim_wrapper\.optimizer\.lr"):
        set_schedule(config, ScheduleOptions(lr=0.1), 40)
    with pytest.raises(UserError, match="train_cfg has neither max_epochs nor max_iters: its length cannot be set"):
        set_schedule(small_config({}), ScheduleOptions(epochs=1), 40)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("WORLD_SIZE", "0")
    for launcher, processes in (("slurm", 4), ("pytorch", 1), ("none", 1)):
        config, _ = fitted(DETECTOR, world=world_size(launcher), batch_size=2)
        assert config.optim_wrapper.optimizer.lr == 0.02 * 2 * processes / 16


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
    assert own.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    assert own.default_hooks.checkpoint.max_keep_ckpts == 1
    assert fitted(SMALL, pictures=100, preset="finetune", iters=50)[0].train_cfg.max_iters == 50
    for pictures, batch in ((9, 2), (23, 2), (24, 3), (1000, 16)):
        assert fitted(SEGMENTER, pictures=pictures, preset="finetune")[0].train_dataloader.batch_size == batch
    clipped = small_config(EPOCHS, optim_wrapper=dict(clip_grad=dict(max_norm=1)), default_hooks=None)
    line = set_schedule(clipped, ScheduleOptions(preset="finetune"), 40)
    assert clipped["optim_wrapper"]["clip_grad"] == dict(max_norm=1)
    assert "kept" not in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(epochs=1, iters=1), "--epochs and --iters: give one of them"),
        (dict(epochs=0), "--epochs 0: must be an integer of at least 1"),
        (dict(iters=0), "--iters 0: must be an integer of at least 1"),
        (dict(batch_size=0), "--batch-size 0: must be an integer of at least 1"),
        (dict(lr=0.0), "--lr 0.0: must be a number above 0"),
        (dict(lr=math.inf), "--lr inf: must be a number above 0"),
        (dict(lr=float("nan")), "--lr nan: must be a number above 0"),
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
    assert misfits(fitted(DETECTOR, iters=2)[0], per_epoch=40, total=2, world=1) == []  # the shortest warm-up


@pytest.mark.parametrize(
    ("scheduler", "total", "remarked"),
    [
        (dict(end=500), 1000, False),  # half of the training
        (dict(end=500), 999, True),
        (dict(end=500, begin=0), 999, True),
        (dict(end=500, begin=1), 999, False),
        (dict(end=12, by_epoch=True), 960, False),
        (dict(end=13, by_epoch=True), 999, True),
        (dict(end=500, start_factor=1, end_factor=0.1), 999, False),  # a decay
        (dict(end=500, type="MultiStepLR"), 999, False),
        (dict(), 999, False),
    ],
)
def test_a_warm_up_of_more_than_half_the_training_is_remarked_on(scheduler, total, remarked):
    config = Config(small_config({}, dict(type="LinearLR", by_epoch=False) | scheduler))
    assert len(misfits(config, per_epoch=40, total=total, world=1)) == remarked


@pytest.mark.parametrize(
    ("base", "more", "world", "remarked"),
    [(9, {}, 1, True), (7, {}, 1, False), (8, {}, 1, True), (2, {}, 1, True), (3, {}, 1, False), (2, {}, 2, True),
     (100, dict(enable=True), 1, False), (100, dict(fitted=True), 1, False), (None, {}, 1, False), (8, {}, 2, False)],
)  # fmt: skip
def test_a_rate_for_twice_or_half_the_batch_is_remarked_on(base, more, world, remarked):
    config = Config(small_config({}, auto_scale_lr=dict(base_batch_size=base, **more)))
    assert len(misfits(config, per_epoch=40, total=480, world=world)) == remarked


def test_pictures_are_counted_as_the_data_set_reads_them(shapes):
    config = load_config(DETECTOR)
    with pytest.raises(UserError, match="train data: FileNotFoundError: "):
        count_pictures(config)
    own = dict(data_root="", ann_file=str(shapes / "annotations/instances_train.json"))
    config.train_dataloader.dataset.update(
        own, data_prefix=dict(img=str(shapes / "images")), metainfo=dict(classes=("x",))
    )
    with pytest.raises(UserError, match="train data: no picture is left: filter_cfg leaves out those without objects"):
        count_pictures(config)
    del config.train_dataloader.dataset["filter_cfg"]
    assert count_pictures(config) == 4


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
    assert sizes(config, "scale", "crop_size") == {(257, 257)}
    assert tuple(config.model.data_preprocessor.size) == (257, 257)
    assert tuple(config.model.data_preprocessor.test_cfg["size"]) == (257, 257)
    config = load_config("mmseg::deeplabv3/deeplabv3_r50-d8_4xb4-20k_voc12aug-512x512.py")
    set_image_size(config._cfg_dict, (256, 256))
    assert sizes(config, "scale", "crop_size") == {(256, 256), (1024, 256)}
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
    assert parse_image_size("16X17") == (16, 17)
    for text in ("640x", "axb", "8", "15", "16x15", "15x16", "1x2x3", "", "-640"):
        with pytest.raises(UserError, match="expected a side in px"):
            parse_image_size(text)


def step(type: str, **arguments: Any) -> dict[str, Any]:
    return dict(type=type, **arguments)


SIZED = [  # of a config of 200 x 100 px that gets 300 x 50
    (step("Resize", scale=(200, 100)), dict(scale=(300, 50))),
    (step("mmdet.Resize", scale=(200, 100), keep_ratio=True), dict(scale=(300, 50))),
    (step("Resize", scale=(100, 200), keep_ratio=True), dict(scale=(50, 300))),
    (step("Resize", scale=(100, 100), keep_ratio=True), dict(scale=(150, 50))),
    (step("RandomChoiceResize", scales=[(200, 100), (100, 200)], keep_ratio=True), dict(scales=[(300, 50), (50, 300)])),
    (step("RandomChoiceResize", scales=[(200, 100), (20, 10)]), dict(scales=[(300, 50), (30, 5)])),
    (step("RandomAffine", border=(-20, -10)), dict(border=(-30, -5))),
    (step("RandomCrop", crop_size=(100, 200)), dict(crop_size=(50, 300))),
    (step("RandomCrop", crop_size=(0.5, 0.5), crop_type="relative"), dict(crop_size=(0.5, 0.5))),
    (step("CenterCrop", crop_size=101), dict(crop_size=152)),
    (step("Pad", size=None, size_divisor=32), dict(size=None)),
    (step("RandomFlip", scale=(1, 2)), dict(scale=(1, 2))),
]


@pytest.mark.parametrize("place", ["train_dataloader", "val_dataloader", "tta_pipeline", "custom_hooks"])
def test_each_size_of_a_pipeline_is_in_the_order_of_its_transform(place):
    steps = [copy.deepcopy(before) for before, _ in SIZED]
    config = dict(test_dataloader=dict(dataset=dict(pipeline=[step("Resize", scale=(200, 100))])), model={})
    config |= {place: dict(type="X", pipeline=steps)}
    if place == "train_dataloader":  # whose crop goes before the Resize of the test pipeline
        config["test_dataloader"] = dict(dataset=dict(pipeline=[step("Resize", scale=(999, 999))]))
    assert set_image_size(config, (300, 50)) == "pictures 200x100 -> 300x50 px"
    for found, (before, after) in zip(steps, SIZED, strict=True):
        assert {key: found[key] for key in after} == after, before


def test_sizes_of_the_model_are_height_first():
    preprocessor, test = dict(size=(100, 200), pad_val=0), dict(mode="slide", crop_size=(100, 200), stride=[50, 100])
    model = dict(data_preprocessor=preprocessor, test_cfg=test, backbone=dict(stride=(2, 2), size=4))
    config = dict(model=model, test_dataloader=dict(dataset=dict(pipeline=[step("Resize", scale=(200, 100))])))
    set_image_size(config, (300, 50))
    assert preprocessor["size"] == (50, 300)
    assert (test["crop_size"], test["stride"]) == ((50, 300), (25, 150))
    assert model["backbone"] == dict(stride=(2, 2), size=4)


@pytest.mark.parametrize(
    ("train", "test", "size"),
    [
        ([step("RandomCrop", crop_size=(100, 200))], [step("Resize", scale=(9, 9))], (200, 100)),
        ([step("RandomCrop", crop_size=64)], [step("Resize", scale=(9, 9))], (64, 64)),
        ([step("RandomCrop", crop_size=(0.5, 1), crop_type="relative")], [step("Resize", scale=(90, 80))], (90, 80)),
        ([], [step("Resize", scale=99), step("CenterCrop", crop_size=64)], (64, 64)),
        ([step("Resize", scale=(7, 8))], [step("Resize", scale=None), step("mmseg.Resize", scale=(90, 80))], (90, 80)),
        ([step("RandomResizedCrop", scale=224)], None, (224, 224)),
        (None, [step("RandomCrop", crop_size=32)], (32, 32)),
    ],
)
def test_the_size_of_a_config_is_that_of_its_crop_or_of_the_test_pipeline(train, test, size):
    loaders = {f"{name}_dataloader": dict(dataset=dict(pipeline=steps))
               for name, steps in (("train", train), ("test", test)) if steps is not None}  # fmt: skip
    assert own_size(loaders) == size
    with pytest.raises(UserError, match="have no Resize and no crop: --image-size and mmms advise need one"):
        own_size(dict(test_dataloader=dict(dataset=dict(pipeline=[step("Resize", scale_factor=2)]))))


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
