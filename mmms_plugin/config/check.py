"""Faults of a config, each in one line: its values, its data sets, and whatever fails while it is built."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmengine.registry import OPTIMIZERS

from mmms_plugin.coco.json_files import load_annotations
from mmms_plugin.compat.hosts import not_installed
from mmms_plugin.config.edit import class_count_owners, class_name, leaf_datasets, value_at
from mmms_plugin.errors import RunError, UserError, counted, first_line, memory_checked, shown

T = TypeVar("T")
PATHS = {"data_root": (str, Path), "ann_file": (str, Path), "data_prefix": (str, Path, dict)}  # of data sets
NO_PICTURES = "no picture is left: filter_cfg leaves out those without objects, and those below its min_size"
NOTHING_LEFT = "need at least one array to concatenate"  # mmengine's message about a data set without pictures


def user_fault(what: str, build: Callable[[], T]) -> T:
    """Call ``build``, which builds a part of a config; every error becomes one line.

    Hosts reject values with whatever exception comes up: an assertion, a division by zero, torch's RuntimeError for a
    negative size. Until something runs, all of them are faults of the config.

    Args:
        what: part of the config, for the message.
        build: makes the result.

    Raises:
        UserError: ``build`` raised anything but a RunError.
        RunError: there is not enough memory.
    """
    try:
        with memory_checked(what):
            return build()
    except (UserError, RunError) as error:
        raise type(error)(first_line(error)) from error
    except ModuleNotFoundError as error:
        raise UserError(f"{what}: {not_installed(error.name) or first_line(error)}") from error
    except KeyError as error:  # mostly a registry's: 'Foo is not in the mmdet::model registry. Please check ...'
        text = first_line(error).strip("'\"").partition(". Please check")[0]
        raise UserError(f"{what}: {text if ' ' in text else f'key {text!r} is missing'}") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise UserError(f"{what}: {first_line(error)}") from error
        raise UserError(
            "the installed torchvision was built for another torch, and mmengine imports it: install the build that "
            "belongs to this torch, or none"
        ) from error
    except Exception as error:
        raise UserError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


class Allowed(NamedTuple):
    """What is allowed for a value, in words, and the check."""

    words: str
    fits: Callable[[Any], bool]


def _whole(least: int, *others: int) -> Allowed:
    words = f"must be an integer of at least {least}" + "".join(f", or {other}" for other in others)
    return Allowed(words, lambda v: _is_int(v) and (v >= least or v in others))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


POSITIVE = Allowed("must be a number above 0", lambda v: _is_number(v) and v > 0)
NOT_NEGATIVE = Allowed("must be a number of at least 0", lambda v: _is_number(v) and v >= 0)
BOOL = Allowed("must be True or False", lambda v: isinstance(v, bool))
SHARE = Allowed("must be above 0 and at most 1", lambda v: _is_number(v) and 0 < v <= 1)

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
# What is allowed for the keys of each part of a config. A key that is absent or None keeps its default.
LOADER = {"batch_size": _whole(1), "num_workers": _whole(0), "persistent_workers": BOOL, "drop_last": BOOL,
          "prefetch_factor": _whole(1)}  # fmt: skip
OPTIMIZER = {"lr": POSITIVE, "weight_decay": NOT_NEGATIVE, "momentum": NOT_NEGATIVE}
SCHEDULER = {"begin": _whole(0), "end": _whole(1), "by_epoch": BOOL, "T_max": _whole(1), "gamma": POSITIVE,
             "start_factor": SHARE, "power": POSITIVE, "eta_min": NOT_NEGATIVE}  # fmt: skip
PARTS: dict[str, dict[str, Allowed]] = {
    **dict.fromkeys(LOADERS, LOADER),
    "train_cfg": {"max_epochs": _whole(1), "max_iters": _whole(1), "val_interval": _whole(1), "val_begin": _whole(0)},
    "optim_wrapper": {"accumulative_counts": _whole(1)},
    "optim_wrapper.optimizer": OPTIMIZER,
    "optim_wrapper.clip_grad": {"max_norm": POSITIVE},
    "default_hooks.checkpoint": {"interval": _whole(1, -1), "max_keep_ckpts": _whole(1, -1)},
    "default_hooks.logger": {"interval": _whole(1)},
    "randomness": {"seed": Allowed("must be an integer from 0 to 2^32 - 1", lambda v: _is_int(v) and 0 <= v < 2**32)},
    "log_processor": {"window_size": _whole(1)},
    "auto_scale_lr": {"base_batch_size": _whole(1)},
}
DICTIONARIES = (
    "model", *LOADERS, *(f"{loader}.sampler" for loader in LOADERS), "train_cfg", "val_cfg", "test_cfg",
    "optim_wrapper", "optim_wrapper.optimizer", "default_hooks", "log_processor", "auto_scale_lr", "randomness",
    "env_cfg", "visualizer",
)  # fmt: skip
TEXTS = ("load_from", "default_scope", "launcher")  # or None
OF_WORKERS = ("persistent_workers", "prefetch_factor")  # settings that need worker processes


def check_values(config: dict[str, Any]) -> None:
    """Check the values that people change most; drop settings of worker processes from loaders that have none.

    Raises:
        UserError: a value has the wrong type or is out of range.
    """
    for path in DICTIONARIES:
        _refuse_plain(path, value_at(config, path))
    for name, hook in (config.get("default_hooks") or {}).items():
        _refuse_plain(f"default_hooks.{name}", hook)
    hooks = config.get("custom_hooks") or []
    if not isinstance(hooks, list | tuple):
        raise UserError(f"custom_hooks={shown(hooks)}: must be a list of dictionaries")
    for i, hook in enumerate(hooks):
        _refuse_plain(f"custom_hooks.{i}", hook)
    for path in TEXTS:
        if not isinstance(config.get(path) or "", str):
            raise UserError(f"{path}={shown(config.get(path))}: must be a text")
    if not isinstance(config.get("work_dir", ""), str):
        raise UserError(f"work_dir={shown(config.get('work_dir'))}: must be a folder")
    if not isinstance(value_at(config, "model.backbone"), dict):
        raise UserError(f"model.backbone={shown(value_at(config, 'model.backbone'))}: must be a dictionary with a type")
    schedulers = config.get("param_scheduler") or []
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    if not isinstance(schedulers, list | tuple):
        raise UserError(f"param_scheduler={shown(schedulers)}: must be a dictionary or a list of dictionaries")
    parts = [(path, value_at(config, path), keys) for path, keys in PARTS.items()]
    parts += [(f"param_scheduler.{i}", scheduler, SCHEDULER) for i, scheduler in enumerate(schedulers)]
    for path, part, keys in parts:
        for name, allowed in keys.items() if isinstance(part, dict) else ():
            value = part.get(name)
            if value is not None and not allowed.fits(value):
                raise UserError(f"{path}.{name}={shown(value)}: {allowed.words}")
    for i, scheduler in enumerate(schedulers):
        begin, end = (scheduler.get(key) for key in ("begin", "end")) if isinstance(scheduler, dict) else (None, None)
        if begin is not None and end is not None and end <= begin:
            raise UserError(f"param_scheduler.{i}.end={end}: must be above its begin, {begin}")
    optimizer = value_at(config, "optim_wrapper.optimizer.type")
    if isinstance(optimizer, str):
        with OPTIMIZERS.switch_scope_and_registry(config.get("default_scope") or "mmengine") as registry:
            if registry.get(optimizer) is None:
                near = difflib.get_close_matches(optimizer, OPTIMIZERS.module_dict, n=3, cutoff=0.5)
                hint = f"; the nearest are {', '.join(near)}" if near else ""
                raise UserError(f"optim_wrapper.optimizer.type={shown(optimizer)}: no optimizer of that name{hint}")
    for part in class_count_owners(config["model"]):
        if part["num_classes"] < 1:
            raise UserError(f"num_classes={part['num_classes']} of {part.get('type', 'model')}: must be at least 1")
    for key in LOADERS:
        loader = config.get(key)
        if isinstance(loader, dict) and loader.get("num_workers", 0) == 0:
            for name in OF_WORKERS:
                loader.pop(name, None)


def _refuse_plain(path: str, value: Any) -> None:
    """Raise UserError for a value that is neither a dictionary nor None, nor an object that mmengine takes as well."""
    if isinstance(value, str | int | float | list | tuple):
        raise UserError(f"{path}={shown(value)}: must be a dictionary")


def check_datasets(config: dict[str, Any], splits: tuple[str, ...]) -> None:
    """Check that annotations and pictures exist and that the classes are those of the config.

    Raises:
        UserError: a file or folder is missing, or the number of classes differs.
    """
    counts = sorted({part["num_classes"] for part in class_count_owners(config["model"])})
    stated = f"the config's num_classes is {' and '.join(map(str, counts))}"
    if "train" in splits and config.get("train_dataloader") is None:
        raise UserError("train_dataloader=None: must be a dictionary")
    for split in splits:
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            for key, kinds in PATHS.items():
                if not isinstance(dataset.get(key) or "", kinds):
                    allowed = "a path, or a dictionary of them" if dict in kinds else "a path"
                    raise UserError(f"{split} data: {key}={shown(dataset[key])}: must be {allowed}")
            root, listing = dataset.get("data_root") or "", dataset.get("ann_file")
            if not listing and "data_prefix" not in dataset:  # mmpretrain's CIFAR10 downloads its files
                continue
            if not listing:
                prefix = dataset["data_prefix"] or ""
                folder = Path(root, prefix if isinstance(prefix, str) else next(iter(prefix.values()), ""))
                if not folder.is_dir():
                    raise UserError(
                        f"{split} data: {folder} does not exist; give --image-dir DIR to use data of your own"
                    )
                continue
            path = Path(root, listing)
            if not path.is_file():
                option = "--coco-dir DIR" if path.suffix == ".json" else "--voc-dir DIR"
                raise UserError(f"{split} data: {path} does not exist; give {option} to use data of your own")
            if path.suffix != ".json" or class_name(dataset).endswith("MultiLabelDataset") or not counts:
                continue
            classes = (dataset.get("metainfo") or {}).get("classes")
            if classes is not None and counts != [len(classes)]:
                raise UserError(
                    f"{stated}, its data set names {counted(len(classes), 'class')}: set num_classes={len(classes)} in "
                    "every head, or give --coco-dir DIR, which does"
                )
            if classes is None:
                content = load_annotations(path, f"{split} data")
                names = {str(category.get("name")) for category in content["categories"]}
                if counts != [len(names)]:
                    raise UserError(
                        f"{path} has {counted(len(names), 'category')}, {stated}: give --coco-dir DIR, which takes the "
                        "classes from the data"
                    )
