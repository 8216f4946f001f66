"""Early stopping, averaged weights, frozen stages, a share of the data, loggers: options that add them to any config.

What they add are mmengine's hooks and arguments of the hosts, as a config would name them. Each function changes the
config in place and returns a remark for the log. Hosts are imported only by the functions that need them: the options
of commands import this module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.augmentation import PRESETS, augment
from mmms_plugin.config.edit import arguments_of, class_name, leaf_datasets
from mmms_plugin.errors import UserError, counted
from mmms_plugin.options import CommandOptions, option

if TYPE_CHECKING:
    from mmengine.config import Config

TECHNIQUES, OUTPUT = "techniques", "output"  # headings of --help
LOGGERS = {  # backend of mmengine, and the package that it needs
    "tensorboard": ("TensorboardVisBackend", "tensorboard"),
    "mlflow": ("MLflowVisBackend", "mlflow"),
    "wandb": ("WandbVisBackend", "wandb"),
    "clearml": ("ClearMLVisBackend", "clearml"),
    "neptune": ("NeptuneVisBackend", "neptune"),
    "dvclive": ("DVCLiveVisBackend", "dvclive"),
    "aim": ("AimVisBackend", "aim"),
}
MLFLOW_URI, MLFLOW_EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"  # variables that mmengine ignores
STOPS, AVERAGES = "EarlyStoppingHook", "EMAHook"
SMALLEST_GAIN = 1e-6  # without it, mmengine takes an equal score for a better one
# Averages over the last hundredth of the steps at first, over the last 5,000 in a long training
AVERAGE = dict(type=AVERAGES, ema_type="MomentumAnnealingEMA", momentum=0.0002, gamma=100, update_buffers=True)


@dataclass(frozen=True, kw_only=True)
class TechniqueOptions(CommandOptions):
    """The user's wishes; None and False leave the config as it is."""

    patience: int | None = option(
        metavar="N", least=1, group=TECHNIQUES,
        help="stop after N evaluations in a row without a better score, by the metric of save_best or else the usual "
        "one of the validation, such as box AP; the best checkpoint is kept",
    )  # fmt: skip
    ema: bool = option(
        default=False, group=TECHNIQUES,
        help="average the weights over the last steps (exponential moving average); the averages are evaluated and "
        "saved",
    )  # fmt: skip
    freeze: int | None = option(
        metavar="N", least=0, group=TECHNIQUES,
        help="keep the backbone's stem and its first N stages as they start; 0 is the stem alone (default: the "
        "config's)",
    )  # fmt: skip
    fraction: float | None = option(
        metavar="SHARE", above=0, most=1, group=TECHNIQUES,
        help="train on a random share of the pictures, such as 0.1; the same ones in every run, and those of a smaller "
        "share among them (default: all)",
    )  # fmt: skip
    augment: str | None = option(
        choices=PRESETS, group=TECHNIQUES,
        help="change the training pictures: light (mirrored, slightly other colours), strong (also cropped, rotated or "
        "erased in part) or aerial (mirrored both ways, for pictures from above) (default: the config's)",
    )  # fmt: skip
    logger: tuple[str, ...] = option(
        choices=tuple(LOGGERS), default=(), group=OUTPUT,
        help="also log to these; their packages are installed by you",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.logger:
            if find_spec(LOGGERS[name][1]) is None:
                package = LOGGERS[name][1]
                raise UserError(f"--logger {name}: {package} is not installed; install it with: pip install {package}")


def use_techniques(config: Config, options: TechniqueOptions) -> list[str]:
    """Add what the options ask for; return remarks for the log.

    Raises:
        UserError: the config has no place for one of them.
    """
    remarks = []
    if options.fraction is not None:
        remarks.append(use_fraction(config, options.fraction))
    if options.augment is not None:
        remarks.append(augment(config, options.augment))
    if options.freeze is not None:
        remarks.append(freeze_stages(config, options.freeze))
    if options.ema:
        remarks.append(average_weights(config))
    if options.patience is not None:
        remarks.append(stop_early(config, options.patience))
    for name in options.logger:
        log_to(config, name)
    return remarks


def use_fraction(config: Config, fraction: float) -> str:
    """Let every training data set keep a random share of its pictures, at least one."""
    for dataset in leaf_datasets(config.train_dataloader):
        whole = dict(dataset)
        dataset.clear()
        dataset.update(type="mmms_plugin.share_of", dataset=whole, share=fraction)
    return f"--fraction {fraction:g}: a random share of the training pictures, the same in every run"


def freeze_stages(config: Mapping[str, Any], stages: int) -> str:
    """Freeze the backbone's stem and its first stages.

    Raises:
        UserError: the backbone has no such option, or fewer stages.
    """
    backbone = config["model"]["backbone"]
    names, _ = arguments_of(config, backbone.get("type"))
    if "frozen_stages" not in names:
        raise UserError(f"--freeze: the backbone, {backbone.get('type')}, has no frozen_stages")
    most = backbone.get("num_stages", 4)
    if "num_stages" in names and stages > most:
        raise UserError(f"--freeze {stages}: the backbone has {counted(most, 'stage')}")
    backbone["frozen_stages"] = stages
    parts = f"stem and first {counted(stages, 'stage')} are" if stages else "stem is"
    return f"--freeze {stages}: the backbone's {parts} not trained"


def average_weights(config: Config) -> str:
    """Add mmengine's EMAHook; one of the config's own stays."""
    hooks = _hooks(config, AVERAGES)
    if hooks:
        return "--ema: the config averages the weights already, in its own way"
    config.custom_hooks = [*(config.get("custom_hooks") or ()), dict(AVERAGE)]
    return "--ema: averaged weights are evaluated and saved"


def stop_early(config: Config, patience: int) -> str:
    """Add mmengine's EarlyStoppingHook and keep the best checkpoint; of the config's own, only the patience changes.

    Raises:
        UserError: nothing is evaluated, or it is not known which metric to follow.
    """
    from mmms_plugin.config.monitors import followed_metric

    if config.get("val_dataloader") is None or config.get("val_evaluator") is None:
        raise UserError(f"--patience {patience}: this config has no validation to follow")
    hooks = _hooks(config, STOPS)
    if not hooks:
        name = followed_metric(config)
        best = (config.get("default_hooks") or {}).get("checkpoint") or {}
        rule = best.get("rule") if best.get("save_best") in (name, [name]) else None
        hook = dict(type=STOPS, monitor=name, min_delta=SMALLEST_GAIN, **({"rule": rule} if rule else {}))
        config.custom_hooks = [*(config.get("custom_hooks") or ()), hook]
        hooks = [config.custom_hooks[-1]]
        if best and not best.get("save_best"):
            best["save_best"] = name
    for hook in hooks:
        hook["patience"] = patience
    names = " and ".join(str(hook.get("monitor")) for hook in hooks)
    return f"--patience {patience}: stops after {counted(patience, 'evaluation')} without a better {names}"


def log_to(config: Config, name: str) -> None:
    """Add a logger's backend to the config's, unless it is among them; mmengine's own files stay."""
    kind, _ = LOGGERS[name]
    run = Path(config.work_dir).name
    options: dict[str, dict[str, Any]] = {
        "wandb": dict(init_kwargs=dict(name=run)),
        "mlflow": dict(
            run_name=run, exp_name=os.environ.get(MLFLOW_EXPERIMENT, "mmms"),
            tracking_uri=os.environ.get(MLFLOW_URI, "sqlite:///mlflow.db"),
        ),
    }  # fmt: skip
    if config.get("visualizer") is None:
        config.visualizer = dict(type="Visualizer", name="visualizer")
    backends = config.visualizer.get("vis_backends") or [dict(type="LocalVisBackend")]
    if not any(class_name(backend) == kind for backend in backends):
        config.visualizer["vis_backends"] = [*backends, dict(type=kind, **options.get(name, {}))]


def _hooks(config: Config, kind: str) -> list[dict[str, Any]]:
    """The config's hooks of a type of mmengine."""
    parts = [*(config.get("default_hooks") or {}).values(), *(config.get("custom_hooks") or ())]
    return [hook for hook in parts if isinstance(hook, dict) and class_name(hook) == kind]
