"""The schedule and picture size that the user asks for, fitted to the data of a config; warnings where nobody asked."""

from __future__ import annotations

import copy
import logging
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

from mmms_plugin.config.building import EMPTY, NO_PICTURES
from mmms_plugin.config.edit import dicts_in
from mmms_plugin.config.files import first_line
from mmms_plugin.config.image_size import set_image_size
from mmms_plugin.config.schedule import ScheduleOptions, processes, schedulers_of, set_schedule
from mmms_plugin.errors import UserError

FAR = 2.0  # factor between two batch sizes from which the learning rate is remarked on


def fit(
    config: Config, schedule: ScheduleOptions, image_size: tuple[int, int] | None, launcher: str, training: bool
) -> list[str]:
    """Fit a config whose data sets are set to what the user asks for; returns remarks for the log.

    Args:
        config: changed in place.
        schedule: its options.
        image_size: width and height of pictures in px, or None for the config's.
        launcher: of the processes that train together.
        training: whether the schedule is used.

    Raises:
        UserError: the config cannot be fitted, or its training data cannot be read.
    """
    remarks = []
    if image_size:
        remarks.append(f"--image-size: {set_image_size(config._cfg_dict, image_size)}")
    if training and schedule.given:
        pictures = count_pictures(config)
        remarks.append(set_schedule(config._cfg_dict, schedule, pictures, processes(launcher), str(config.filename)))
    return remarks


def count_pictures(config: Config) -> int:
    """How many pictures an epoch of the training data has, as the data set itself counts: empty ones may be left out.

    Raises:
        UserError: the data set cannot be built, or is empty.
    """
    init_default_scope(config.get("default_scope") or "mmengine")
    dataset = copy.deepcopy(config.train_dataloader.dataset)
    for part in dicts_in(dataset):
        if "pipeline" in part:
            part["pipeline"] = []
    try:
        count = len(DATASETS.build(dataset))
    except (ValueError, TypeError, KeyError, OSError, AssertionError) as error:
        if EMPTY in str(error):
            raise UserError(NO_PICTURES.format("train data")) from error
        raise UserError(f"train data: {type(error).__name__}: {first_line(error)}") from error
    if not count:
        raise UserError(NO_PICTURES.format("train data"))
    return count


class ScheduleHook(Hook):
    """Before training, warns of a schedule that does not fit the data; never changes it."""

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        for line in misfits(runner.cfg, len(runner.train_dataloader), runner.max_iters, runner.world_size):
            print_log(line, "current", logging.WARNING)


def misfits(config: Any, per_epoch: int, total: int, world: int) -> list[str]:
    """What in a schedule does not fit: a line each.

    Args:
        per_epoch: iterations of an epoch. total: of the training. world: processes.
    """
    lines = []
    for scheduler in schedulers_of(config):
        end = scheduler.get("end")
        if not scheduler.get("by_epoch", True) and scheduler["type"].endswith(("LinearLR", "ConstantLR")) \
                and not scheduler.get("begin") and isinstance(end, int) and end * 2 > total:  # fmt: skip
            lines.append(
                f"the warm-up takes {end} iterations and the training has {total} ({per_epoch} an epoch): --epochs N "
                "or --preset finetune fit the schedule to the data"
            )
    scaling = config.get("auto_scale_lr") or {}
    base, batch = scaling.get("base_batch_size"), config.train_dataloader.batch_size * world
    if base and not scaling.get("enable") and "fitted" not in scaling and not base / FAR < batch < base * FAR:
        lines.append(
            f"the learning rate is for batches of {base} pictures and these have {batch}: give --auto-scale-lr or --lr"
        )
    return lines
