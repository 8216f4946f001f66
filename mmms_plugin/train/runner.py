"""mmengine's Runner, so that a resumed training ends with the weights of an uninterrupted one, bit for bit on a CPU.

Order of data, augmentations and the model's own random numbers depend on the run's seed and on the iteration (see
``batches``). The seed is in every checkpoint; it is set before anything is built. Not repeated: what a data set or a
transform remembers of earlier samples (mmdet's ``CachedMosaic``), gradients of a half-done accumulation
(``accumulative_counts``), and batch statistics of other ranks than 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop

from mmms_plugin.config.building import CheckedBuilds
from mmms_plugin.config.checkpoint import TRAINED, trained_meta
from mmms_plugin.errors import UserError
from mmms_plugin.train.batches import MODEL, Continued, NumberedBatches, number_batches, seed_generators
from mmms_plugin.train.console import calm, calm_output, say
from mmms_plugin.train.finite_hook import FiniteHook
from mmms_plugin.train.progress_hook import ProgressHook
from mmms_plugin.weights.newest import newest_checkpoint, resumable_meta


class ResumableRunner(CheckedBuilds):
    """A Runner whose trainings can be stopped after any iteration and resumed to the same result."""

    _load_from: str | None
    _train_dataloader: Any
    batches: NumberedBatches | None = None
    resumed: tuple[int, int] = (0, 0)  # epochs and iterations done when the checkpoint was saved

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """As ``Runner.register_hooks``, and those that this class needs."""
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(ResumeHook())
        self.register_hook(FiniteHook())
        if not any(isinstance(hook, ProgressHook) for hook in self.hooks):
            self.register_hook(ProgressHook())

    def build_logger(
        self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:  # the base's signature
        """As ``Runner.build_logger``; the console shows what the user is to read, the file has everything."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        calm(logger)
        return logger

    def test(self) -> dict[str, float]:
        """As ``Runner.test``; an error leaves no progress bar on the terminal."""
        try:
            with calm_output():
                return super().test()
        finally:
            self._close_bars()

    def _close_bars(self) -> None:
        for hook in self.hooks:
            if isinstance(hook, ProgressHook):
                hook.close()

    def train(self) -> torch.nn.Module:
        """As ``Runner.train``; the seed of a checkpoint to be resumed holds from the beginning.

        Raises:
            UserError: the checkpoint cannot be resumed from.
            RunError: a loss or a weight became NaN or infinite.
        """
        if self._resume and self._load_from is None:
            found, remarks = newest_checkpoint(self.work_dir)
            self._load_from = None if found is None else str(found)
            for line in remarks:
                say(line)
        if self._resume and self._load_from is not None:
            self._begin_as(self._load_from)
        try:
            with calm_output():
                return super().train()
        finally:
            self._close_bars()

    def _begin_as(self, path: str) -> None:
        try:
            meta = resumable_meta(path)
        except UserError as error:
            raise UserError(f"--resume {path}: {error}") from error
        self.resumed = meta["epoch"], meta["iter"]
        randomness = meta.get("randomness")
        known = randomness if isinstance(randomness, dict) else {}
        kept = {key: known[key] for key in ("deterministic", "diff_rank_seed") if type(known.get(key)) is bool}
        if meta.get("seed") is not None:
            self._randomness_cfg.update(seed=meta["seed"], **kept)
        self.set_randomness(**self._randomness_cfg)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As ``Runner.build_train_loop``, with numbered batches where the loop is one of mmengine's two."""
        kind = _kind_of(loop)
        if isinstance(loop, BaseLoop) or kind is None:
            return super().build_train_loop(loop)
        given = self._train_dataloader
        different = self._randomness_cfg.get("diff_rank_seed", False)
        loader = self.build_dataloader(given, seed=self.seed, diff_rank_seed=different)
        endless = issubclass(kind, IterBasedTrainLoop)
        self.batches = number_batches(loader, (self.seed, self.rank), endless)
        if self.batches is not None and endless:
            self.batches.start = self.resumed[1]
        self._train_dataloader = loader
        try:
            built = super().build_train_loop(loop)
        finally:
            self._train_dataloader = given  # whose batch size the linear rule (scale_lr) reads
        if self.batches is not None and endless:
            built.dataloader_iterator = Continued(built.dataloader_iterator, self.resumed[1])
        elif self.batches is not None:
            _count_within_epoch(built, self.resumed[0])
        return built


def _kind_of(loop: BaseLoop | dict) -> type | None:
    """Which of mmengine's two loops a config builds, or a class derived from one; None for any other."""
    if not isinstance(loop, dict):
        return None
    if "type" not in loop:
        return EpochBasedTrainLoop if loop.get("by_epoch") else IterBasedTrainLoop
    kind = LOOPS.get(loop["type"]) if isinstance(loop["type"], str) else loop["type"]
    return kind if isinstance(kind, type) and issubclass(kind, EpochBasedTrainLoop | IterBasedTrainLoop) else None


def _count_within_epoch(loop: Any, epoch: int) -> None:
    """Number the batches of a resumed epoch as if it had not been interrupted."""
    run_iter = loop.run_iter

    def run_from_there(idx: int, data_batch: Any) -> None:
        run_iter(loop.iter - epoch * len(loop.dataloader) if loop.epoch == epoch else idx, data_batch)

    loop.run_iter = run_from_there


class ResumeHook(Hook):
    """Seeds every iteration; keeps in checkpoints what resuming needs, and puts right what it finds in them."""

    priority = "HIGHEST"

    def before_train_epoch(self, runner: ResumableRunner) -> None:
        """Skip the batches of a half-done epoch that were trained on already."""
        batches = runner.batches
        if batches is None or batches.endless:
            return
        batches.number = batches.start = runner.iter
        if runner.iter and (runner.epoch, runner.iter) == runner.resumed:
            batches.number -= min(max(runner.iter - runner.epoch * len(batches), 0), len(batches))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None) -> None:
        """Set the generators that the model draws from."""
        rank = runner.rank if runner._randomness_cfg.get("diff_rank_seed") else 0
        seed_generators(runner.seed, rank, MODEL, runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep how the seed is to be used, and what the weights are trained for."""
        names = ("deterministic", "diff_rank_seed")
        checkpoint["meta"]["randomness"] = {key: bool(runner._randomness_cfg.get(key)) for key in names}
        if "backbone" in runner.cfg.get("model", {}):
            checkpoint["meta"][TRAINED] = trained_meta(runner.cfg.model)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Find the best and the last checkpoint again in a work folder that was moved or copied.

        mmengine removes them by the absolute paths that it noted; in a copy these are the originals. And it would run
        ``meta.config`` of the file as code.
        """
        meta, hub = checkpoint.get("meta"), checkpoint.get("message_hub")
        if isinstance(meta, dict):
            meta.pop("config", None)
        info: dict[str, Any] = (hub.get("runtime_info") if isinstance(hub, dict) else None) or {}
        for key, path in info.items():
            if key == "last_ckpt" or key.startswith("best_ckpt"):
                here = Path(runner.work_dir, Path(str(path)).name)
                info[key] = str(here) if here.is_file() else path if Path(str(path)).is_file() else None
