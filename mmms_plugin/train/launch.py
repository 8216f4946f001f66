"""Training and testing a config with mmengine's Runner: all of ``mmms train`` and ``mmms test``."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from PIL import Image

from mmms_plugin import signals
from mmms_plugin.compat import mmcv_ops
from mmms_plugin.compat.processes import leave
from mmms_plugin.config.check import check_datasets, check_values, user_fault
from mmms_plugin.config.checkpoint import (
    check_fits,
    check_function,
    check_resumed,
    start_of,
    start_remark,
    use_components,
)
from mmms_plugin.config.data import check_config_data
from mmms_plugin.config.edit import (
    apply_cfg_options,
    class_name,
    data_classes,
    dicts_in,
    leaf_datasets,
    merge_option,
    value_at,
)
from mmms_plugin.config.files import SEPARATOR, load_config
from mmms_plugin.config.function import Function
from mmms_plugin.config.image_size import set_image_size
from mmms_plugin.config.monitors import check_monitors
from mmms_plugin.config.schedule import count_pictures, log_as_the_loop_counts, set_schedule
from mmms_plugin.config.start import start_for
from mmms_plugin.config.techniques import use_techniques
from mmms_plugin.config.tiles import use_tiles
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import check_folder, make_folder
from mmms_plugin.processes import shell_line
from mmms_plugin.train.console import calm_output, say
from mmms_plugin.train.early_exit import EarlyExitHook
from mmms_plugin.train.hooks import EarlierHook, OptimizeHook, ScheduleHook, StartHook, unwrapped
from mmms_plugin.train.options import NEWEST, NO_WEIGHTS, DataOptions, EvaluateOptions, LaunchOptions, TrainOptions
from mmms_plugin.train.predictions import SampleHook
from mmms_plugin.train.processes import (
    check_launcher,
    locked,
    on_device,
    process_rank,
    set_workers,
    settle_threads,
    use_no_workers,
    world_size,
)
from mmms_plugin.train.results_hook import ResultsHook
from mmms_plugin.train.runner import ResumableRunner
from mmms_plugin.train.shared_test import share_test
from mmms_plugin.train.stopping import AGAIN, TESTING, TRAINING, peers_watched, shown
from mmms_plugin.train.tasks import Classification, task_of
from mmms_plugin.weights.fetch import read_place
from mmms_plugin.weights.files import read_checkpoint
from mmms_plugin.weights.newest import newest_checkpoint, why_unusable

OTHER_START = "give --pretrained FILE, or --pretrained none for random weights"
# Parts of a config that a test does not use, and the options that change them
UNUSED_IN_TESTS = (
    "train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "val_dataloader", "val_cfg", "val_evaluator"
)  # fmt: skip
GPU_STRATEGIES = ("FSDPStrategy", "DeepSpeedStrategy")  # of mmengine's FlexibleRunner
OF_DATA = ("ann_file", "data_prefix", "data_root", "filter_cfg", "metainfo")  # that change which objects are read
OF_TRAINING = (
    "load_from",
    "resume",
    "train_",
    "val_",
    "optim_",
    "param_",
    "default_hooks",
    "custom_hooks",
    "randomness",
    "auto_scale",
)


def prepare_config(options: LaunchOptions, training: bool = True) -> tuple[Config, list[str]]:
    """Load a config and apply data, seed, work folder and all other options to it.

    Args:
        options: of the command line.
        training: whether the training data are used, else only the data that are evaluated.

    Returns:
        The config, and remarks for the log.

    Raises:
        UserError: config, options and data do not fit each other.
    """
    config = load_config(options.config)
    if "model" not in config:
        raise UserError(f"config {options.config}: it has no model; is it a file of _base_?")
    task = task_of(config)
    task.check_installed()
    default_folder = Path("work_dirs", Path(options.config.rpartition(SEPARATOR)[2]).stem)
    config.work_dir = options.work_dir or config.get("work_dir") or str(default_folder)
    if not training:  # a training's folder holds its config, which a test would overwrite
        config.work_dir = str(Path(config.work_dir, "test"))
    check_folder(config.work_dir, "--work-dir")

    Image.MAX_IMAGE_PIXELS = options.max_pixels  # mmseg reads masks with Pillow
    own = options.own_data(config.work_dir, training)
    remarks = task.use_data(config, own) if own else []
    remarks += apply_cfg_options(config, options.cfg_options)
    if options.seed is not None:
        config.randomness = dict(seed=options.seed, deterministic=True)
    config.launcher = options.launcher
    if options.workers is not None:
        set_workers(config, options.workers)
    remarks += use_no_workers(config)

    check_values(config)
    splits = ("train", "val") if training else ("test",)
    check_datasets(config, splits)
    if not own or any(f".{part}" in key for key in options.cfg_options for part in OF_DATA):
        remarks += check_config_data(config, splits, Path(config.work_dir), options.max_pixels)

    if options.tiling.tiles is not None:
        task.check_tiles()
        remarks += use_tiles(config, options.tiling, training)
    if training:
        remarks += use_techniques(config, options.techniques)
    asked = config.to_dict()
    fits_schedule = training and options.schedule.given
    if options.image_size:
        remarks.append(f"--image-size: {set_image_size(config._cfg_dict, options.image_size)}")
    if fits_schedule:
        world = world_size(options.launcher)
        remarks.append(
            set_schedule(config._cfg_dict, options.schedule, count_pictures(config), world, str(config.filename))
        )
    if fitted := [key for key in options.cfg_options if value_at(config, key) != value_at(asked, key)]:
        remarks.append(f"--cfg-options {', '.join(fitted)}: kept as given, whatever the lines above say")
        for key in fitted:
            merge_option(config, key, options.cfg_options[key])
    if training:
        log_as_the_loop_counts(config._cfg_dict)
        check_monitors(config)
    return config, remarks


@calm_output()
def train(options: TrainOptions) -> Runner:
    """Train a config.

    Raises:
        UserError: config, data and checkpoint do not fit each other.
        RunError: the training had to stop.
        Interrupted: a signal ended it; its state is saved.
    """
    command = _command_to_resume(options)
    with peers_watched(f"resume with: {command}" if command else AGAIN, TRAINING), ExitStack() as stack:
        _begin(options)
        stack.enter_context(on_device(options.device))
        config, remarks = prepare_config(options)
        if options.amp:
            if get_device() != "cuda":
                raise UserError("--amp: needs a CUDA device, and torch sees none, or --device names another")
            config.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
        strategy = class_name(config.get("strategy") or {})
        if strategy in GPU_STRATEGIES and get_device() == "cpu":
            raise UserError(f"strategy.type={strategy}: needs a GPU, and torch sees none, or --device names another")
        if options.auto_scale_lr and not options.schedule.fits:  # a fitted schedule includes the rate
            if "base_batch_size" not in config.get("auto_scale_lr", {}):
                raise UserError("--auto-scale-lr: the config has no auto_scale_lr.base_batch_size")
            config.auto_scale_lr.enable = True
        if process_rank(options.launcher) == 0:
            stack.enter_context(locked(config.work_dir))
        set_start(config, options.pretrained, options.resume, remarks)
        freeze = options.techniques.freeze
        if freeze is not None and config.model.backbone.get("frozen_stages") != freeze:
            raise UserError(f"--freeze {freeze}: the backbone starts from random weights; {OTHER_START.split(',')[0]}")
        runner = _build_runner(config, options, remarks)
        runner.register_hook(ScheduleHook())
        runner.register_hook(ResultsHook(options.config, options.words))
        if options.samples:
            runner.register_hook(SampleHook(options.samples))
        if not config.get("resume"):
            runner.register_hook(EarlierHook())
        _check_start(runner, config, options.pretrained)
        if isinstance(runner, ResumableRunner):
            runner.stop.command = command
            runner.checks_data = options.own_data(config.work_dir, training=True) is None
        try:
            runner.train()
        except URLError as error:
            raise UserError(
                f"the config's initial weights cannot be downloaded ({error.reason}): {OTHER_START}"
            ) from error
        with signals.explained("after the last iteration; the training is complete"):
            for line in closing_lines(runner, options):
                say(line)
            leave()
        return runner


@calm_output()
@peers_watched(AGAIN, TESTING)
def evaluate(options: EvaluateOptions, announce: bool = True) -> dict[str, float]:
    """Evaluate a checkpoint, keep or draw its predictions if the options say so, and return the metrics.

    Args:
        options: what to evaluate.
        announce: say where the files are.

    Raises:
        UserError: config, data and checkpoint do not fit each other.
    """
    _begin(options)
    checkpoint, out = options.checkpoint, options.out
    config, remarks = prepare_config(options, training=False)
    task = task_of(config)
    if out:
        task.check_out(out)
    for option, folder in (("--out", out), ("--show-dir", options.show_dir)):
        if folder and Path(folder).resolve() in _data_folders(config):
            raise UserError(f"{option} {folder}: the data are there, which it would replace; give another folder")
    early = None
    if options.exit_budget is not None or options.exit_risk is not None:
        task.check_early_exit()
        early = EarlyExitHook(checkpoint, options.exit_budget, options.exit_risk)
        remarks.append(early.remark)
    config.load_from, config.resume = checkpoint, False
    for key in UNUSED_IN_TESTS:
        config[key] = None
    drop_initial_weights(config)
    saved = read_checkpoint(checkpoint)
    if remark := use_components(config.model, saved):
        remarks.append(remark)
    if options.show_dir:
        task.draw_into(config, make_folder(options.show_dir, "--show-dir"))
    if options.size_report:
        task.report_sizes(config, Path(options.size_report))
    with tempfile.TemporaryDirectory() as scratch, on_device(options.device):
        if out:
            task.keep_predictions(config, Path(scratch), out)
        if options.launcher != "none":
            share_test(config)
        runner = _build_runner(config, options, remarks)
        model, own, classes = unwrapped(runner.model), Function.of(runner.cfg), data_classes(config, "test")
        _warn(check_fits(model, saved, "test", classes))
        _warn(check_function(model, own, saved, options.force, classes))
        if early:
            runner.register_hook(early)
        del saved  # mmengine reads it again
        if options.optimize:
            runner.register_hook(OptimizeHook())
        metrics = runner.test()
        if out and is_main_process():
            task.finish_predictions(Path(scratch), out)
    for what, where in (("predictions", out), ("drawings", options.show_dir), ("figures by size", options.size_report)):
        if where and announce:
            say(f"{what}: {where}")
    if out and announce and (command := task.measured_by(config, out)):
        say(f"AP by object size: {command}")
    leave()
    return metrics


def _data_folders(config: Config) -> set[Path]:
    """Where a test reads pictures and masks."""
    folders = set()
    for dataset in leaf_datasets(config.get("test_dataloader")):
        prefix = dataset.get("data_prefix") or ""
        for place in prefix.values() if isinstance(prefix, dict) else (prefix,):
            folders.add(Path(dataset.get("data_root") or "", str(place or "")).resolve())
    return folders


def _begin(options: LaunchOptions) -> None:
    options.check_files()
    os.environ.setdefault("LOCAL_RANK", str(options.local_rank))  # an option of torch's old launcher
    check_launcher(options.launcher)
    settle_threads()


def set_start(config: Config, pretrained: str | None, resume: str | None, remarks: list[str]) -> None:
    """Set where the weights come from: a checkpoint to resume from, backbone weights, or the config's own start.

    A backbone that starts from random weights is not frozen.
    """
    backbone = config.model.backbone
    if not resume and config.get("resume") and not config.get("load_from"):
        resume = NEWEST  # the config's own wish
    if resume:
        path: Path | None = Path(resume)
        if resume == NEWEST:
            path, choice = newest_checkpoint(config.work_dir)
            remarks += choice
            if path is None:
                remarks.append(f"--resume: no checkpoint found in {config.work_dir}; starting from scratch")
        elif fault := why_unusable(resume):
            raise UserError(f"--resume {resume}: {fault}")
        config.resume, config.load_from = path is not None, None if path is None else str(path)
    if pretrained:
        config.model.pop("pretrained", None)  # the key of mmseg and of old versions of mmdet
        backbone.init_cfg = None if pretrained == NO_WEIGHTS else dict(type="Pretrained", checkpoint=pretrained)
        if pretrained != NO_WEIGHTS and config.get("load_from") and not config.get("resume"):
            remarks.append(f"--pretrained {pretrained}: used in place of load_from={config.load_from}")
            config.load_from = None
    config.load_from = config.get("load_from")
    if backbone.get("init_cfg") or config.load_from or config.model.get("pretrained"):
        return
    if backbone.get("frozen_stages", -1) >= 0 or backbone.get("norm_eval"):
        backbone.update(frozen_stages=-1, norm_eval=False)
        remarks.append(
            "the backbone starts from random weights, so frozen_stages and norm_eval, which are for fine-tuning, are "
            "off; give --pretrained FILE to fine-tune"
        )
    elif pretrained != NO_WEIGHTS and not isinstance(task_of(config), Classification):
        remarks.append("the backbone starts from random weights; give --pretrained FILE to fine-tune")


def _check_start(runner: Runner, config: Config, pretrained: str | None) -> None:
    """Compare the model with the weights that it starts from; warn about differences that can be trained with.

    Raises:
        UserError: the weights are for another model, or their package is missing.
    """
    model = unwrapped(runner.model)
    if pretrained and pretrained != NO_WEIGHTS:
        model.backbone.init_cfg = None
        if not config.get("resume"):
            _start_from(runner, config, pretrained)
            return
    init = config.model.backbone.get("init_cfg")
    parts = init if isinstance(init, list | tuple) else [init or {}]
    initial = next((part.get("checkpoint") for part in parts if part.get("type") == "Pretrained"), None)
    start, own, classes = config.load_from or initial, Function.of(runner.cfg), data_classes(config, "train")
    if start and start.startswith("torchvision://") and find_spec("torchvision") is None:
        raise UserError(f"initial weights {start}: torchvision, which has their address, is missing: {OTHER_START}")
    if not start:
        return
    checkpoint, resumes = start_of(start), bool(config.load_from and config.get("resume"))
    if config.load_from and checkpoint.state:
        _warn(check_fits(model, checkpoint, "resume" if resumes else "start from", classes))
    if resumes:
        _warn(check_resumed(model, own, checkpoint, classes))
    else:
        _warn(start_remark(model, own, start, checkpoint, whole=bool(config.load_from)))


def _start_from(runner: Runner, config: Config, place: str) -> None:
    checkpoint = read_place(place) if is_main_process() else None  # one process downloads
    barrier()
    own, classes = Function.of(runner.cfg), data_classes(config, "train")
    start = start_for(unwrapped(runner.model), own, checkpoint or read_place(place), place, classes)
    runner.register_hook(StartHook(start.state))
    say(one_line(start.line))
    _warn(start.remark)


def drop_initial_weights(config: Config) -> None:
    """Do not load the weights that training started from: a checkpoint has every weight."""
    for part in dicts_in(config.model):
        part.pop("init_cfg", None)
    config.model.pop("pretrained", None)


def _build_runner(config: Config, options: LaunchOptions, remarks: list[str]) -> Runner:
    runner = user_fault(
        "config", lambda: RUNNERS.build(config) if "runner_type" in config else ResumableRunner.from_cfg(config)
    )
    if options.channels_last:
        runner.model.to(memory_format=torch.channels_last)
    for line in (f"log: {runner.logger.log_file}", mmcv_ops(), *remarks):
        say(line)
    return runner


def _warn(remark: str | None) -> None:
    if remark:
        print_log(one_line(remark), "current", logging.WARNING)


def best_checkpoint(runner: Runner) -> tuple[str, Path] | None:
    """A training's best checkpoint, or else its last, and which of them it is; None if nothing was saved."""
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook):
            continue
        best = [getattr(hook, "best_ckpt_path", None), *getattr(hook, "best_ckpt_path_dict", {}).values()]
        last = hook.last_ckpt or newest_checkpoint(runner.work_dir)[0]  # none is new if a resumed training was complete
        for kind, path in [*(("best", path) for path in best), ("last", last)]:
            if path and Path(path).is_file():
                return kind, Path(path)
    return None


def closing_lines(runner: Runner, options: LaunchOptions) -> list[str]:
    """The last lines of a training: its best checkpoint, or else its last, and the command that tests it."""
    saved = best_checkpoint(runner)
    if saved is None:
        return ["no checkpoint was saved, by the config's default_hooks.checkpoint"]
    kind, path = saved
    return [f"{kind} checkpoint: {shown(path)}", f"test it: {_command_to_test(options, shown(path))}"]


def _command_to_resume(options: TrainOptions) -> str:
    """The command that was given, with ``--resume``; '' if the training was started from Python."""
    words = [word for word in options.words if not word.startswith(("--resume=", "--local_rank", "--local-rank"))]
    while "--resume" in words:
        place = words.index("--resume")
        del words[place : place + (2 if words[place + 1 : place + 2] == [options.resume] else 1)]
    start = ["mmms", "train"]
    if options.launcher == "pytorch":
        start = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1"), "-m", "mmms_plugin", "train"]
    elif options.launcher == "slurm":
        start = ["srun", f"--ntasks={world_size('slurm')}", "mmms", "train"]
    return shell_line([*start, *words, "--resume"]) if words else ""


def _command_to_test(options: LaunchOptions, checkpoint: str | Path) -> str:
    words = ["mmms", "test", options.config, str(checkpoint)]
    for field in fields(DataOptions):
        value = getattr(options, field.name)
        if value != field.default and field.name not in ("train_ann", "split"):
            words.append(f"--{field.name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    words += options.tiling.words
    if options.image_size:
        words += ["--image-size", "x".join(map(str, options.image_size))]
    if options.work_dir:
        words += ["--work-dir", options.work_dir]
    if used := {key: value for key, value in options.cfg_options.items() if not key.startswith(OF_TRAINING)}:
        words += ["--cfg-options", *(f"{key}={_as_option(value)}" for key, value in used.items())]
    return shell_line(words)


def _as_option(value: Any) -> str:
    """A value as ``--cfg-options`` reads it."""
    if isinstance(value, list | tuple):
        inner = ",".join(map(_as_option, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return str(value)
