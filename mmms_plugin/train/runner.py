"""mmengine's Runner, with faults of the config in one line, and exact resuming.

A resumed training ends with the weights of an uninterrupted one, bit for bit on a CPU. The order of the data, the
augmentations and the model's own random numbers depend only on the run's seed and the iteration (see ``batches``). The
seed is in every checkpoint, and is set before anything is built. Not repeated: what a data set or a transform remembers
of earlier samples (mmdet's ``CachedMosaic``), and, of ranks other than 0, batch statistics and the gradients of a
half-done accumulation (``accumulative_counts``).
"""

from __future__ import annotations

import atexit
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook, Hook, ParamSchedulerHook
from mmengine.logging import MMLogger
from mmengine.registry import LOOPS, VISUALIZERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.visualization import Visualizer
from PIL import Image

from mmms_plugin import signals
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.compat.torch_internals import end_workers
from mmms_plugin.config.channels import channels_explained
from mmms_plugin.config.check import NO_PICTURES, NOTHING_LEFT, user_fault
from mmms_plugin.config.edit import dicts_in
from mmms_plugin.config.function import Function
from mmms_plugin.config.monitors import listed
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.files import write_text
from mmms_plugin.train.batches import (
    MODEL,
    Continued,
    NumberedBatches,
    kept_generators,
    number_batches,
    seed_generators,
)
from mmms_plugin.train.console import ProgressHook, calm, calm_output, say
from mmms_plugin.train.hooks import FiniteHook, MemoryHook, unwrapped
from mmms_plugin.train.host_data import check_built
from mmms_plugin.train.resuming import (
    EVALUATIONS,
    GRADIENTS,
    EarlierRun,
    Evaluation,
    accumulation_counts,
    figures_of,
    flat,
    followed_metric,
    parameter_groups,
    replay,
    set_gradients,
    settings,
)
from mmms_plugin.train.stopping import EVALUATION_DUE, TESTING, SafeStop, kill_workers, shield_worker, worker_death
from mmms_plugin.weights.files import TRAINED
from mmms_plugin.weights.newest import newest_checkpoint, read_resumable


class CheckedBuilds(Runner):
    """A Runner that reports every fault of the config in one line, also faults that come up late.

    mmengine builds loops, loaders, optimizer and schedules only when a run starts. The first sample of each data set
    and the first iteration are tried like them: a transform may miss a key, a neck may expect other channels than the
    backbone has. Later errors are bugs and keep their traceback.
    """

    _load_from: str | None
    checks_data: bool = False  # the data sets are the config's own, and were not checked before

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> Any:
        """As ``Runner.build_dataloader``."""
        try:
            loader = user_fault("dataloader", lambda: Runner.build_dataloader(dataloader, seed, diff_rank_seed))
        except UserError as error:
            if NOTHING_LEFT not in str(error):
                raise
            raise UserError(f"dataloader: {NO_PICTURES}") from error
        atexit.unregister(kill_workers)
        atexit.register(kill_workers)
        # spawned workers (macOS, Windows) start with Pillow's own limit
        loader.worker_init_fn = partial(_begin_worker, loader.worker_init_fn, Image.MAX_IMAGE_PIXELS)
        return loader

    def build_train_loop(self, loop: Any) -> Any:
        """As ``Runner.build_train_loop``."""
        built = user_fault("train_cfg", lambda: Runner.build_train_loop(self, loop))
        try_sample("train_dataloader", built.dataloader)
        if isinstance(built, EpochBasedTrainLoop) and not len(built.dataloader):
            raise UserError(
                f"train_dataloader.drop_last=True: {len(built.dataloader.dataset)} pictures are less than a batch for "
                "each process, so an epoch would be empty: give a smaller --batch-size"
            )
        self._check_data("train", built.dataloader)
        self._guard_first_iteration(built)
        return built

    def build_val_loop(self, loop: Any) -> Any:
        """As ``Runner.build_val_loop``."""
        built = user_fault("val_cfg", lambda: Runner.build_val_loop(self, loop))
        try_sample("val_dataloader", built.dataloader)
        self._check_data("val", built.dataloader)
        return built

    def build_test_loop(self, loop: Any) -> Any:
        """As ``Runner.build_test_loop``."""
        built = user_fault("test_cfg", lambda: Runner.build_test_loop(self, loop))
        try_sample("test_dataloader", built.dataloader)
        self._guard_first_iteration(built)
        return built

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """As ``Runner.build_optim_wrapper``."""
        return user_fault("optim_wrapper", lambda: Runner.build_optim_wrapper(self, optim_wrapper))

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """As ``Runner.build_param_scheduler``.

        Raises:
            UserError: a cycle is shorter than the training, in whose middle mmengine would raise.
        """
        built = user_fault("param_scheduler", lambda: Runner.build_param_scheduler(self, scheduler))
        for part in flat(built):
            length, unit = (self.max_epochs, "epochs") if part.by_epoch else (self.max_iters, "iterations")
            total = getattr(part, "total_steps", length)
            if min(length, part.end) - part.begin > total:
                raise UserError(
                    f"param_scheduler: {type(part).__name__}.total_steps={total}: shorter than this training, {length} "
                    f"{unit}: --epochs N and --iters N fit it"
                )
        return built

    def _init_model_weights(self) -> None:
        """As ``Runner._init_model_weights``."""
        user_fault("model", lambda: Runner._init_model_weights(self))

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """As ``Runner.call_hook``.

        At the start of a training, hooks check their arguments by assertions. Schedulers that follow a metric skip an
        evaluation without any, of a detector that found nothing.
        """
        if fn_name in ("before_run", "before_train"):
            for hook in self._hooks:
                user_fault(type(hook).__name__, partial(getattr(hook, fn_name), self, **kwargs))
        elif fn_name == "after_val_epoch" and not kwargs.get("metrics"):
            for hook in self._hooks:
                hook.after_val_epoch(self, **(dict(metrics=None) if isinstance(hook, ParamSchedulerHook) else kwargs))
        else:
            super().call_hook(fn_name, **kwargs)

    def load_or_resume(self) -> None:
        """As ``Runner.load_or_resume``; a checkpoint may hold anything in place of counters, states and settings."""
        user_fault(f"checkpoint {self._load_from}", lambda: Runner.load_or_resume(self))

    def _check_data(self, split: str, loader: Any) -> None:
        if self.checks_data and is_main_process():
            parts = dicts_in(self.cfg.get("model"))
            void = {part["ignore_index"] for part in parts if isinstance(part.get("ignore_index"), int)}
            check_built(getattr(loader, "dataset", None), split, void, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)

    def _guard_first_iteration(self, loop: Any) -> None:
        """Report errors of the loop's first iteration in one line and write the traceback to a file."""
        run_iter, done = loop.run_iter, False

        def run_guarded(*args: Any) -> None:
            nonlocal done
            if done:
                return run_iter(*args)
            try:
                with channels_explained(unwrapped(self.model), self.cfg.get("model") or {}):
                    user_fault("the first iteration failed", lambda: run_iter(*args))
            except UserError as error:
                text = "".join(traceback.format_exception(error.__cause__ or error))
                path = write_text(Path(self.work_dir, "first_iteration_error.txt"), text)
                raise UserError(f"{error} (traceback: {path})") from error
            done = True

        loop.run_iter = run_guarded


def _begin_worker(begin: Callable[[int], None] | None, max_pixels: int | None, number: int) -> None:
    """Let a data worker leave signals to the main process, and read masks of up to ``max_pixels`` as that does."""
    shield_worker()
    Image.MAX_IMAGE_PIXELS = max_pixels
    if begin is not None:
        begin(number)


def try_sample(what: str, loader: Any) -> None:
    """Prepare the first sample of a loader's data set, without a change to the random generators.

    Otherwise a wrong validation pipeline would stop training only after hours.

    Raises:
        UserError: the data set is empty, or its transforms fail.
    """
    data = getattr(loader, "dataset", None)
    if data is None or not hasattr(data, "__len__"):
        return
    with kept_generators():
        if not user_fault(what, lambda: len(data)):
            raise UserError(f"{what}: {NO_PICTURES}")
        user_fault(f"{what}: the first sample cannot be prepared", lambda: data[0])


class ResumableRunner(CheckedBuilds):
    """A Runner whose training can be stopped after any iteration and resumed to the same result."""

    _load_from: str | None
    _train_dataloader: Any
    batches: NumberedBatches | None = None
    earlier: EarlierRun | None = None  # the training that is resumed
    resumed: tuple[int, int] = (0, 0)  # epochs and iterations that are done, as this loop counts them
    evaluations: dict[str, list[Evaluation]] | None = None  # of each metric that something follows; None if unknown

    @cached_property
    def stop(self) -> SafeStop:
        """What ends this training early."""
        return SafeStop(self)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """As ``Runner.call_hook``; between some hooks, signals may end the run."""
        self.stop.before_hooks(fn_name)
        super().call_hook(fn_name, **kwargs)
        self.stop.after_hooks(fn_name)

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """As ``Runner.register_hooks``, with the hooks that this class needs."""
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(ResumeHook())
        self.register_hook(DueEvaluation())
        self.register_hook(FiniteHook())
        self.register_hook(MemoryHook())
        if not any(isinstance(hook, ProgressHook) for hook in self.hooks):
            self.register_hook(ProgressHook())

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """As ``Runner.build_logger``; the console shows only what the user should read, the file has everything."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        calm(logger)
        return logger

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """As ``Runner.build_visualizer``, but new: mmengine would take that of an earlier run in this process.

        Scalars and drawings would go to the folder of that run.
        """
        if isinstance(visualizer, dict) and "name" in visualizer:
            with VISUALIZERS.switch_scope_and_registry(None) as registry:
                kind = visualizer.get("type")
                for known in (Visualizer, registry.get(kind) if isinstance(kind, str) else kind):
                    getattr(known, "_instance_dict", {}).pop(visualizer["name"], None)
        return super().build_visualizer(visualizer)

    def test(self) -> dict[str, float]:
        """As ``Runner.test``; no progress bar stays on the terminal after an error.

        Raises:
            RunError: a data worker died.
        """
        try:
            with calm_output():
                return super().test()
        except Exception as error:
            if death := worker_death(error, TESTING):
                raise RunError(death) from error
            raise
        finally:
            self._close()

    def _close(self) -> None:
        """Close progress bars, and end data workers, which Python's exit would kill: their files would stay."""
        for hook in self.hooks:
            if isinstance(hook, ProgressHook):
                hook.close()
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            if isinstance(loop, BaseLoop):
                end_workers(loop.dataloader)
                end_workers(getattr(loop, "dataloader_iterator", None))  # of a loop over iterations

    def train(self) -> torch.nn.Module:
        """As ``Runner.train``, with the seed of the checkpoint that is resumed from the very beginning.

        Raises:
            UserError: the checkpoint cannot be resumed from.
            RunError: a loss or a weight became NaN or infinite, or a data worker died.
            Interrupted: a signal ended the training; its state is saved.
        """
        with signals.catching(), self.stop.watching():
            if self._resume and self._load_from is None:
                newest, remarks = newest_checkpoint(self.work_dir)
                self._load_from = None if newest is None else str(newest)
                for line in remarks:
                    say(line)
            self.evaluations = {}
            if self._resume and self._load_from is not None:
                self._begin_as(self._load_from)
            self._optimizer_config = self.optim_wrapper
            try:
                with calm_output():
                    return super().train()
            finally:
                self._close()

    def _begin_as(self, path: str) -> None:
        try:
            content = read_resumable(path)
        except UserError as error:
            raise UserError(f"--resume {path}: {error}") from error
        meta, self.earlier = content["meta"], user_fault(f"--resume {path}", lambda: EarlierRun.of(content))
        self.resumed, self.evaluations = (self.earlier.epoch, self.earlier.iter), self.earlier.evaluations
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
            built = super().build_train_loop(loop)
            self.stop.guard(built, pauses_to_load=False)
            return built
        given = self._train_dataloader
        different = self._randomness_cfg.get("diff_rank_seed", False)
        loader = self.build_dataloader(given, seed=self.seed, diff_rank_seed=different)
        endless = issubclass(kind, IterBasedTrainLoop)
        if self.earlier is not None:
            self._go_on_in(None if endless else len(loader), loop)
        self.batches = number_batches(loader, (self.seed, self.rank), endless)
        if self.batches is not None and endless:
            self.batches.start = self.resumed[1]
        self._train_dataloader = loader
        try:
            built = super().build_train_loop(loop)
        finally:
            self._train_dataloader = given  # whose batch size the linear rule (scale_lr) reads
        if endless:
            done = 0 if self.batches is None else self.resumed[1]
            built.dataloader_iterator = Continued(built.dataloader_iterator, done, self.stop.pause)
        elif self.batches is not None:
            _count_within_epoch(built, self.resumed[0])
        self.stop.guard(built, pauses_to_load=endless)
        return built

    def _go_on_in(self, epoch_length: int | None, loop: Any) -> None:
        """Find where the training goes on in a loop with that epoch length; None if the loop counts iterations."""
        assert self.earlier is not None
        self.resumed = epochs, iterations = self.earlier.position(epoch_length)
        self.evaluations = self.earlier.converted(epoch_length)
        key, unit, done = ("max_iters", "iterations", iterations) if epoch_length is None else (
            "max_epochs", "epochs", epochs)  # fmt: skip
        length = loop.get(key)
        if isinstance(length, int) and done > length:
            raise UserError(
                f"--resume {self._load_from}: it was saved after {done} {unit}, and this training has {length}: "
                "train longer, with --epochs or --iters, or resume from an earlier checkpoint"
            )
        if done == length:
            say(f"--resume: {self._load_from} is complete: all {length} {unit} are done, nothing is left to train")
        if iterations != self.earlier.iter:
            say(
                f"--resume: iteration {self.earlier.iter} of the earlier training is iteration {iterations} of this "
                f"one, after {epochs} epochs of {epoch_length} iterations"
            )

    def resume(
        self, filename: str, resume_optimizer: bool = True, resume_param_scheduler: bool = True,
        map_location: Any = "default",
    ) -> None:  # fmt: skip
        """As ``Runner.resume``, with the schedule of this run's config in place of the checkpoint's."""
        loop, path, recorded = self.train_loop, self._load_from, self.evaluations or {}
        if self.earlier is None:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
            return
        schedulers = flat(self.param_schedulers)
        if reason := _why_no_replay(loop, schedulers, self.earlier, recorded):
            say(f"--resume: {path} {reason}: its schedule is used, whatever this config says")
            self.evaluations = None
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
            return
        replay(schedulers, self.resumed, len(loop.dataloader) if _counts_epochs(loop) else None, recorded)
        own = settings(self.optim_wrapper, self._optimizer_config)
        super().resume(filename, resume_optimizer, False, map_location)
        groups = list(zip(parameter_groups(self.optim_wrapper), own, strict=True))
        for theirs, ours in groups:
            if not math.isclose(theirs["lr"], ours["lr"], rel_tol=1e-6):
                say(
                    f"--resume: the learning rate goes on at {ours['lr']:.3g}, by this config's schedule; "
                    f"{path} had {theirs['lr']:.3g}"
                )
                break
        for theirs, ours in groups:
            theirs.update(ours)


def _counts_epochs(loop: Any) -> bool:
    return isinstance(loop, EpochBasedTrainLoop)


def _why_no_replay(
    loop: Any, schedulers: Sequence[Any], earlier: EarlierRun, recorded: Mapping[str, Any]
) -> str | None:  # fmt: skip
    """Why the steps of the schedulers cannot be repeated, or None."""
    if not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
        return f"goes on in a {type(loop).__name__}, which counts in its own way"
    followed = {name for scheduler in schedulers if (name := followed_metric(scheduler))} & earlier.followed
    if lost := sorted(followed - set(recorded)):
        return f"has no record of the evaluations of {', '.join(lost)}, which the schedule follows"
    return None


def _kind_of(loop: BaseLoop | dict) -> type | None:
    """The loop that a config builds if it is one of mmengine's two or derives from one, else None."""
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


def _following_schedulers(runner: Runner) -> list[tuple[str, str]]:
    """Types of the schedulers that follow a metric, and the metrics."""
    schedulers = flat(runner.param_schedulers)
    return [(type(s).__name__, name) for s in schedulers if (name := followed_metric(s))]


class ResumeHook(Hook):
    """Seeds every iteration, adds to checkpoints what resuming needs, and corrects their paths when they are loaded."""

    priority = "HIGHEST"

    def before_train(self, runner: ResumableRunner) -> None:
        """Let early stopping repeat the evaluations so far, and record those of every metric that something follows."""
        if runner.evaluations is None:
            return
        stoppers = [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]
        followers = [*((type(hook).__name__, hook.monitor) for hook in stoppers), *_following_schedulers(runner)]
        for follower, name in followers:
            if runner.earlier is not None and name not in runner.evaluations:
                say(f"--resume: {runner._load_from} has no record of {name}: {follower} counts from here")
        runner.evaluations = {name: runner.evaluations.get(name, []) for _, name in followers}
        for hook in stoppers:
            for evaluation in runner.evaluations[hook.monitor]:
                hook.after_val_epoch(runner, {hook.monitor: evaluation.value})

    def after_train(self, runner: Runner) -> None:
        """Say that the training was stopped early; mmengine says it in the log only."""
        if getattr(runner.train_loop, "stop_training", False):
            done = (f"epoch {runner.epoch} of {runner.max_epochs}" if _counts_epochs(runner.train_loop)
                    else f"iteration {runner.iter} of {runner.max_iters}")  # fmt: skip
            say(f"EarlyStoppingHook ended the training after {done}")

    def after_val_epoch(self, runner: ResumableRunner, metrics: dict[str, float] | None = None) -> None:
        """Record what something follows.

        Raises:
            UserError: a metric is missing, at which mmengine stops with a traceback.
        """
        if not metrics:  # a detector that found nothing: mmengine skips the evaluation
            return
        best = [("save_best", key) for hook in runner.hooks if isinstance(hook, CheckpointHook)
                for key in hook.save_best or () if key != "auto"]  # fmt: skip
        numbers = figures_of(metrics)
        for follower, name in [*best, *_following_schedulers(runner)]:
            if name not in numbers:
                raise UserError(f"{follower}: the validation does not report {name}; it reports {listed(numbers)}")
        for name, values in (runner.evaluations or {}).items():
            if name in numbers:
                values.append(Evaluation(runner.epoch, runner.iter, numbers[name]))
            else:
                say(f"EarlyStoppingHook skips this evaluation, which does not report {name} but {listed(numbers)}")

    def before_train_epoch(self, runner: ResumableRunner) -> None:
        """Skip the batches of an interrupted epoch that were trained on before."""
        batches = runner.batches
        if batches is None or batches.endless:
            return
        batches.number = batches.start = runner.iter
        if runner.iter and (runner.epoch, runner.iter) == runner.resumed:
            batches.number -= min(max(runner.iter - runner.epoch * len(batches), 0), len(batches))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None) -> None:
        """Seed the generators of the model's random numbers."""
        rank = runner.rank if runner._randomness_cfg.get("diff_rank_seed") else 0
        seed_generators(runner.seed, rank, MODEL, runner.iter)

    def before_save_checkpoint(self, runner: ResumableRunner, checkpoint: dict) -> None:
        """Add how the seed is used, which function the weights are trained for, and the evaluations so far."""
        names = ("deterministic", "diff_rank_seed")
        checkpoint["meta"]["randomness"] = {key: bool(runner._randomness_cfg.get(key)) for key in names}
        if isinstance(runner.cfg.get("model"), dict):
            checkpoint["meta"][TRAINED] = dict(Function.of(runner.cfg).parts)
        if max(accumulation_counts(runner.optim_wrapper)) > 1:
            parameters = unwrapped(runner.model).named_parameters()
            checkpoint[GRADIENTS] = {name: value.grad for name, value in parameters if value.grad is not None}
        if runner.evaluations is not None:
            recorded = {name: [list(value) for value in values] for name, values in runner.evaluations.items()}
            checkpoint["meta"][EVALUATIONS] = recorded

    def after_load_checkpoint(self, runner: ResumableRunner, checkpoint: dict) -> None:
        """Set the position, and correct the paths of the best and the last checkpoint, whose folder may have moved.

        mmengine removes these files by absolute paths, which in a copy are those of the originals. It would also run
        ``meta.config`` of the file as code, so that is dropped.
        """
        meta, hub = checkpoint.get("meta"), checkpoint.get("message_hub")
        if isinstance(meta, dict):
            meta.pop("config", None)
        if runner.earlier is not None:
            checkpoint["meta"]["epoch"], checkpoint["meta"]["iter"] = runner.resumed
            if any(runner.resumed[1] % count for count in accumulation_counts(runner.optim_wrapper)):
                set_gradients(unwrapped(runner.model), checkpoint.get(GRADIENTS))
            if "ema_state_dict" in checkpoint and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
                say("--resume: the checkpoint has averaged weights, and without EMAHook the training goes on from them")
        info: dict[str, Any] = (hub.get("runtime_info") if isinstance(hub, dict) else None) or {}
        for key, path in info.items():
            if key == "last_ckpt" or key.startswith("best_ckpt"):
                here = Path(runner.work_dir, Path(str(path)).name)
                info[key] = str(here) if here.is_file() else path if Path(str(path)).is_file() else None


class DueEvaluation(Hook):
    """Evaluates a resumed training where the earlier one did not come to it.

    A signal may have ended that within the evaluation. Or early stopping or the rate follows the evaluations: a
    checkpoint is saved before the evaluation of the same epoch, and does not have its outcome.
    """

    priority = "LOWEST"

    def before_train(self, runner: ResumableRunner) -> None:
        """Evaluate if due."""
        loop: Any = runner.train_loop
        if runner.message_hub.get_info(EVALUATION_DUE, False) and runner.val_loop is not None:
            runner.message_hub.update_info(EVALUATION_DUE, False)
            runner.val_loop.run()
            return
        if runner.earlier is None or not runner.evaluations or loop.stop_training:
            return
        done, last = (loop.epoch, loop.max_epochs) if _counts_epochs(loop) else (loop.iter, loop.max_iters)
        within_epoch = _counts_epochs(loop) and loop.iter != loop.epoch * len(loop.dataloader)
        recorded = [value for values in runner.evaluations.values() for value in values]
        if within_epoch or not 0 < done < last or any(value[:2] == runner.resumed for value in recorded):
            return
        loop._decide_current_val_interval()
        if runner.val_loop is not None and done >= loop.val_begin and done % loop.val_interval == 0:
            runner.val_loop.run()
