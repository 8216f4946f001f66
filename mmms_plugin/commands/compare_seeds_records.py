"""The records of ``mmms compare-seeds``, one file for each training, and the costs of the trained networks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from mmms_plugin.coco.json_files import read_typed
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.report.tables import metric_figure
from mmms_plugin.scale.training_log import LARGEST, figure_of, is_figure, logged_scalars

NOT_METRICS = ("step", "time", "data_time", "epoch", "iter")
WANTED = "delete it to train this seed again"


@dataclass(frozen=True)
class SeedRecord:
    """One training.

    Attributes:
        config: as it was given.
        seed: of the training.
        options: of mmms train.
        metrics: of the last evaluation; None where undefined.
        seconds: of an iteration, the median.
        peak_memory: of the process, in bytes.
    """

    config: str
    seed: int
    options: tuple[str, ...]
    metrics: dict[str, float | None]
    seconds: Annotated[float, Meta(ge=0, le=1e9)]
    peak_memory: Annotated[int, Meta(ge=0, le=10**18)]

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError("holds no metrics")
        for name, value in self.metrics.items():
            if value is not None and abs(value) > LARGEST:
                raise ValueError(f"metric {name}: must be a number of at most {LARGEST:g}, or null")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def value(self, metric: str) -> float:
        """NaN where undefined."""
        value = self.metrics[metric]
        figure = None if value is None else metric_figure(value)
        return math.nan if figure is None else figure


def read_record(file: Path, config: str, seed: int, options: Sequence[str]) -> SeedRecord:
    """The record of an earlier run of the command.

    Raises:
        UserError: it is damaged, or of another training than the one that is asked for.
    """
    record = read_typed(file, "--out", SeedRecord, WANTED)
    if list(record.options) != list(options):
        before = " ".join(record.options) or "no options"
        raise UserError(
            f"--out {file.parent.parent}: {file.name} of {config} was trained with {before}; give another DIR"
        )
    if record.seed != seed or not _same_config(record.config, config):
        raise UserError(f"--out {file}: a run of {record.config}, seed {record.seed}; give another DIR, or {WANTED}")
    return record


def _same_config(one: str, other: str) -> bool:
    try:
        return one == other or Path(one).resolve() == Path(other).resolve()
    except (OSError, ValueError):  # not a possible path
        return False


def read_scalars(work_dir: Path) -> tuple[dict[str, float | None], float]:
    """Metrics of a training's last evaluation, and the median time of an iteration: see `read_evaluations`."""
    evaluations, seconds = read_evaluations(work_dir)
    return evaluations[-1], seconds


def read_evaluations(work_dir: Path) -> tuple[list[dict[str, float | None]], float]:
    """Metrics of a training's evaluations, in order, and the median time of an iteration in seconds.

    Raises:
        UserError: the log cannot be read.
        RunError: the training logged no evaluation.
    """
    evaluations: list[dict[str, float | None]] = []
    times: list[float] = []
    for entry in logged_scalars(work_dir):
        figures = {key: figure_of(value) for key, value in entry.items() if is_figure(value)}
        if "loss" in figures:
            times += [figures["time"]] if figures.get("time", -1) >= 0 else []
        elif evaluated := {key: value for key, value in figures.items() if key not in NOT_METRICS}:
            evaluations.append({key: metric_figure(value) for key, value in evaluated.items()})
    if not evaluations or not times:
        raise RunError(f"{work_dir}: the training logged no metrics; does the config evaluate?")
    return evaluations, statistics.median(times)


class TrainedCost(NamedTuple):
    """Parameters; for one picture, multiply-adds and the bytes that training keeps for the backward pass."""

    params: int
    macs: int
    kept: int


def trained_cost(work_dir: Path) -> TrainedCost:
    """Cost of the config that training left in ``work_dir``, with the shape of its newest checkpoint.

    For detectors, multiply-adds and memory are those of backbone and neck.

    Raises: UserError if there is no config or no checkpoint, or they do not fit each other.
    """
    import torch
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, DefaultScope

    from mmms_plugin.config.check import user_fault
    from mmms_plugin.config.facts import as_counted, picture_size, task_name
    from mmms_plugin.config.files import load_config
    from mmms_plugin.registry import use_scope
    from mmms_plugin.scale.flops import count, kept_for_backward
    from mmms_plugin.weights.files import read_checkpoint
    from mmms_plugin.weights.newest import newest_checkpoint

    configs = sorted(work_dir.glob("*.py"))
    checkpoint, _ = newest_checkpoint(work_dir)
    if len(configs) != 1 or checkpoint is None:
        raise UserError(f"{work_dir}: must hold one config and a checkpoint, as training writes them")
    config = load_config(str(configs[0]))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        use_scope(config.default_scope)
        model: Any = user_fault(str(configs[0]), lambda: revert_sync_batchnorm(MODELS.build(config.model)))
    state = read_checkpoint(checkpoint).state
    for key, value in model.state_dict().items():
        if key.endswith(".alpha"):
            if key not in state or state[key].shape != value.shape:
                raise UserError(f"{checkpoint}: {key} is not that of the config beside it")
            value.copy_(state[key])
    model = model.train().to("meta")  # in training mode, adaptors keep their scale as the number that this needs
    part, size = as_counted(model, task_name(config.model)), picture_size(config)
    kept = kept_for_backward(part, torch.empty(2, 3, *size, device="meta")) // 2
    cost = count(part, torch.empty(1, 3, *size, device="meta"))
    return TrainedCost(cost.params, cost.macs, kept)
