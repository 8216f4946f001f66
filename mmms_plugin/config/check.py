"""Checks of a config before anything is built: its values, and its data sets; one line for each fault.

Values are the ordinary ones that people change: batch_size=0, a negative rate.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import OPTIMIZERS

from mmms_plugin.coco.json_files import ANNOTATIONS_WANTED, decode_json
from mmms_plugin.config.edit import class_count_owners, dicts_in, leaf_datasets
from mmms_plugin.errors import UserError


class Allowed(NamedTuple):
    """What a value must be, in words, and the check."""

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

# Part of the config: key: what is allowed. A key that is absent or None keeps its default.
LOADER = {"batch_size": _whole(1), "num_workers": _whole(0), "persistent_workers": BOOL, "drop_last": BOOL,
          "prefetch_factor": _whole(1)}  # fmt: skip
OPTIMIZER = {"lr": POSITIVE, "weight_decay": NOT_NEGATIVE, "momentum": NOT_NEGATIVE}
SCHEDULER = {"begin": _whole(0), "end": _whole(1), "by_epoch": BOOL, "T_max": _whole(1), "gamma": POSITIVE,
             "start_factor": SHARE, "power": POSITIVE, "eta_min": NOT_NEGATIVE}  # fmt: skip
PARTS: dict[str, dict[str, Allowed]] = {
    "train_dataloader": LOADER,
    "val_dataloader": LOADER,
    "test_dataloader": LOADER,
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
DICTIONARIES = ("model", "train_dataloader", "train_cfg", "optim_wrapper", "optim_wrapper.optimizer", "default_hooks")
PERSISTENT = ("persistent_workers", "prefetch_factor")  # of worker processes, of which there may be none


def check_values(config: dict[str, Any]) -> None:
    """Check the values that people change most; set off what only worker processes need where there are none.

    Raises:
        UserError: one is of the wrong type or out of range.
    """
    for path in DICTIONARIES:
        value = _at(config, path)
        if value is not None and not isinstance(value, dict) and isinstance(value, str | int | float | list | tuple):
            raise UserError(f"{path}={_shown(value)}: must be a dictionary")
    if not isinstance(_at(config, "model.backbone"), dict):
        raise UserError(f"model.backbone={_shown(_at(config, 'model.backbone'))}: must be a dictionary with a type")
    for path, name, value, allowed in _values(config):
        if value is not None and not allowed.fits(value):
            raise UserError(f"{path}.{name}={_shown(value)}: {allowed.words}")
    _check_ends(config)
    _check_optimizer(config)
    for part in dicts_in(config.get("model")):
        if _is_int(part.get("num_classes")) and part["num_classes"] < 1:
            raise UserError(f"num_classes={part['num_classes']} of {part.get('type', 'model')}: must be at least 1")
    for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader = config.get(key)
        if isinstance(loader, dict) and loader.get("num_workers", 0) == 0:
            for name in PERSISTENT:
                loader.pop(name, None)


def _values(config: dict[str, Any]) -> Iterator[tuple[str, str, Any, Allowed]]:
    """Path, key, value and what is allowed, of every value that is checked."""
    schedulers = config.get("param_scheduler") or []
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    if not isinstance(schedulers, list | tuple):
        raise UserError(f"param_scheduler={_shown(schedulers)}: must be a dictionary or a list of dictionaries")
    parts = [(path, _at(config, path), keys) for path, keys in PARTS.items()]
    parts += [(f"param_scheduler.{i}", part, SCHEDULER) for i, part in enumerate(schedulers)]
    for path, part, keys in parts:
        for name, allowed in keys.items() if isinstance(part, dict) else ():
            yield path, name, part.get(name), allowed


def _check_ends(config: dict[str, Any]) -> None:
    schedulers = config.get("param_scheduler") or []
    for i, part in enumerate([schedulers] if isinstance(schedulers, dict) else schedulers):
        if isinstance(part, dict) and None not in (part.get("begin"), part.get("end")) and part["end"] <= part["begin"]:
            raise UserError(f"param_scheduler.{i}.end={part['end']}: must be above its begin, {part['begin']}")


def _check_optimizer(config: dict[str, Any]) -> None:
    kind = _at(config, "optim_wrapper.optimizer.type")
    if kind is None or not isinstance(kind, str):
        return
    with OPTIMIZERS.switch_scope_and_registry(config.get("default_scope") or "mmengine") as registry:
        if registry.get(kind) is None:
            near = difflib.get_close_matches(kind, OPTIMIZERS.module_dict, n=3, cutoff=0.5)
            hint = f"; the nearest are {', '.join(near)}" if near else ""
            raise UserError(f"optim_wrapper.optimizer.type={kind!r}: no optimizer of that name{hint}")


def _at(config: dict[str, Any], path: str) -> Any:
    first, *others = path.split(".")
    node = config.get(first)  # the whole config is no dict, its parts are
    for key in others:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _shown(value: Any) -> str:
    return repr(value)[:80]


def check_datasets(config: dict[str, Any], splits: tuple[str, ...]) -> None:
    """Check that the annotation files exist and that their classes are those of the config.

    Raises: UserError.
    """
    for split in splits:
        for dataset in leaf_datasets(config.get(f"{split}_dataloader")):
            path = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
            if dataset.get("ann_file") and not path.is_file():
                option = "--coco-dir DIR" if path.suffix == ".json" else "--voc-dir DIR"
                raise UserError(f"{split} data: {path} does not exist; give {option} to use data of your own")
            folder = Path(dataset.get("data_root") or "", _prefix(dataset))
            if not dataset.get("ann_file") and not folder.is_dir():
                raise UserError(f"{split} data: {folder} does not exist; give --image-dir DIR to use data of your own")
            if path.suffix == ".json" and not str(dataset.get("type")).endswith("MultiLabelDataset"):
                _check_categories(config, dataset, path)


def _prefix(dataset: dict[str, Any]) -> str:
    prefix = dataset.get("data_prefix") or ""
    return prefix if isinstance(prefix, str) else next(iter(prefix.values()), "")


def _check_categories(config: dict[str, Any], dataset: dict[str, Any], path: Path) -> None:
    classes = (dataset.get("metainfo") or {}).get("classes")
    counts = sorted({part["num_classes"] for part in class_count_owners(config["model"])})
    if classes is not None:
        if counts and counts != [len(classes)]:
            raise UserError(
                f"the config's num_classes is {_either(counts)}, its data set names {len(classes)} classes: "
                f"set num_classes={len(classes)} in every head, or give --coco-dir DIR, which does"
            )
        return
    content = decode_json(path.read_bytes(), str(path), ANNOTATIONS_WANTED)
    names = {category["name"] for category in content["categories"]}
    if counts and counts != [len(names)]:
        raise UserError(
            f"{path} has {len(names)} categories, the config's num_classes is {_either(counts)}: "
            "give --coco-dir DIR, which takes the classes from the data"
        )


def _either(counts: list[int]) -> str:
    return " and ".join(map(str, counts))
