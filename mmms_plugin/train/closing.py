"""The last lines of a training: which checkpoint it made, and the command that tests it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmms_plugin.processes import shell_line
from mmms_plugin.train.options import DataOptions, LaunchOptions
from mmms_plugin.weights.newest import newest_checkpoint

TRAINING = ("train_", "val_", "optim_", "param_", "default_hooks", "custom_hooks", "randomness", "auto_scale")  # config


def closing_lines(runner: Runner, options: LaunchOptions) -> list[str]:
    """What to tell at the end of a training."""
    found = _checkpoint(runner)
    if found is None:
        return ["no checkpoint was saved: default_hooks.checkpoint.interval is larger than the training"]
    kind, path = found
    return [f"{kind} checkpoint: {path}", f"test it: {command_to_test(options, path)}"]


def command_to_test(options: LaunchOptions, checkpoint: Path) -> str:
    """The command that evaluates a checkpoint of a training with these options."""
    words = ["mmms", "test", options.config, str(checkpoint)]
    for name in [field.name for field in fields(DataOptions) if field.name not in ("train_ann", "split")]:
        value = getattr(options, name)
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if options.image_size:
        words += ["--image-size", "x".join(map(str, options.image_size))]
    if options.work_dir:
        words += ["--work-dir", options.work_dir]
    used = {key: value for key, value in options.cfg_options.items() if not key.startswith(TRAINING)}
    if used:
        words += ["--cfg-options", *(f"{key}={_as_option(value)}" for key, value in used.items())]
    return shell_line(words)


def _as_option(value: Any) -> str:
    """A value as ``--cfg-options`` reads it."""
    if isinstance(value, list | tuple):
        inner = ",".join(map(_as_option, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return str(value)


def _checkpoint(runner: Runner) -> tuple[str, Path] | None:
    """The best checkpoint of the evaluations, or the last one."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            best = [getattr(hook, "best_ckpt_path", None), *getattr(hook, "best_ckpt_path_dict", {}).values()]
            last = hook.last_ckpt or newest_checkpoint(runner.work_dir)[0]  # none is new if all was trained before
            for kind, path in [*(("best", path) for path in best), ("last", last)]:
                if path and Path(path).is_file():
                    return kind, _short(Path(path))
    return None


def _short(path: Path) -> Path:
    """Relative to the current folder where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
