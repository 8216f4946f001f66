"""Building what a config describes: what goes wrong there is the config's fault, and is reported in one line.

So is what goes wrong with the first sample of each data set and in the first iteration: a transform that misses a key,
a neck that expects other channels than the backbone has. Later errors are bugs, and keep their traceback.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine.runner import Runner

from mmms_plugin.errors import RunError, UserError, first_line
from mmms_plugin.files import write_text

T = TypeVar("T")
NO_PICTURES = "{}: no picture is left: filter_cfg leaves out those without objects, and those below its min_size"
EMPTY = "need at least one array to concatenate"  # mmengine's words for a data set that is left without a picture
# Each build of torchvision asks for one build of torch, and pip replaces the installed torch to please it
NO_TORCHVISION = (
    "torchvision is missing, which mmpretrain imports; install the build that belongs to the installed torch, from "
    "where torch came: pip install torchvision --index-url https://download.pytorch.org/whl/cpu (or cu126, ...); "
    "with another one, pip replaces torch"
)


def user_fault(what: str, build: Callable[[], T]) -> T:
    """Call ``build``, which makes something of a config's values; its errors become one line.

    Hosts complain about values by whatever exception comes up: an assertion, a division by zero, torch's RuntimeError
    for a negative size. All of them are about the config as long as nothing runs yet.

    Args:
        what: part of the config, for the message.
    Raises:
        UserError: ``build`` raised anything.
    """
    try:
        return build()
    except (UserError, RunError) as error:
        raise type(error)(first_line(error)) from error
    except ModuleNotFoundError as error:
        raise UserError(f"{what}: {NO_TORCHVISION if error.name == 'torchvision' else first_line(error)}") from error
    except KeyError as error:  # a registry's, mostly: 'Foo is not in the mmdet::model registry. Please check ...'
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


class CheckedBuilds(Runner):
    """A Runner that builds loops, loaders, optimizer and schedules, which mmengine does late, by `user_fault`."""

    _load_from: str | None

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> Any:
        """As ``Runner.build_dataloader``."""
        try:
            return user_fault("dataloader", lambda: Runner.build_dataloader(dataloader, seed, diff_rank_seed))
        except UserError as error:
            if EMPTY not in str(error):
                raise
            raise UserError(NO_PICTURES.format("dataloader")) from error

    def build_train_loop(self, loop: Any) -> Any:
        """As ``Runner.build_train_loop``."""
        built = user_fault("train_cfg", lambda: Runner.build_train_loop(self, loop))
        try_sample("train_dataloader", built.dataloader)
        self._guard_first_iteration(built)
        return built

    def build_val_loop(self, loop: Any) -> Any:
        """As ``Runner.build_val_loop``."""
        built = user_fault("val_cfg", lambda: Runner.build_val_loop(self, loop))
        try_sample("val_dataloader", built.dataloader)
        return built

    def build_test_loop(self, loop: Any) -> Any:
        """As ``Runner.build_test_loop``."""
        built = user_fault("test_cfg", lambda: Runner.build_test_loop(self, loop))
        try_sample("test_dataloader", built.dataloader)
        return built

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """As ``Runner.build_optim_wrapper``."""
        return user_fault("optim_wrapper", lambda: Runner.build_optim_wrapper(self, optim_wrapper))

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """As ``Runner.build_param_scheduler``."""
        return user_fault("param_scheduler", lambda: Runner.build_param_scheduler(self, scheduler))

    def _init_model_weights(self) -> None:
        """As ``Runner._init_model_weights``."""
        user_fault("model", lambda: Runner._init_model_weights(self))

    def load_or_resume(self) -> None:
        """As ``Runner.load_or_resume``: a checkpoint may hold anything in place of counters, states and settings."""
        user_fault(f"checkpoint {self._load_from}", lambda: Runner.load_or_resume(self))

    def _guard_first_iteration(self, loop: Any) -> None:
        """Let errors of the loop's first iteration become one line; the traceback goes to a file."""
        run_iter, done = loop.run_iter, False

        def run_guarded(*args: Any) -> None:
            nonlocal done
            if done:
                return run_iter(*args)
            try:
                user_fault("the first iteration failed", lambda: run_iter(*args))
            except UserError as error:
                text = "".join(traceback.format_exception(error.__cause__ or error))
                path = write_text(Path(self.work_dir, "first_iteration_error.txt"), text)
                raise UserError(f"{error} (traceback: {path})") from error
            done = True

        loop.run_iter = run_guarded


def try_sample(what: str, loader: Any) -> None:
    """Prepare the first sample of a loader's data set; random numbers stay as they were.

    A wrong pipeline of the validation data would otherwise stop training only after hours.

    Raises:
        UserError: there is none, or its transforms fail.
    """
    data = getattr(loader, "dataset", None)
    if data is None or not hasattr(data, "__len__"):
        return
    # the hosts draw from the global generator
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        if not user_fault(what, lambda: len(data)):
            raise UserError(NO_PICTURES.format(what))
        user_fault(f"{what}: the first sample cannot be prepared", lambda: data[0])
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
