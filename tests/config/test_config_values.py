"""Wrong values in a config: one line before anything is built, or when it is built, or in the first iteration."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, Registry
from torch import nn

from mmms_plugin.config.check import check_values, user_fault
from mmms_plugin.config.files import load_config
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.train.runner import CheckedBuilds, try_sample


@pytest.fixture(scope="module")
def small() -> Config:
    return load_config("demo/mask_rcnn_ps_r18_shapes")


WRONG: list[tuple[str, Any, str]] = [
    ("train_dataloader.batch_size", 0, "must be an integer of at least 1"),
    ("val_dataloader.batch_size", 2.5, "must be an integer of at least 1"),
    ("train_dataloader.batch_size", "two", "must be an integer of at least 1"),
    ("test_dataloader.num_workers", -1, "must be an integer of at least 0"),
    ("train_cfg.max_iters", 0, "must be an integer of at least 1"),
    ("train_cfg.val_interval", 0, "must be an integer of at least 1"),
    ("optim_wrapper.optimizer.lr", -0.1, "must be a number above 0"),
    ("optim_wrapper.optimizer.lr", "fast", "must be a number above 0"),
    ("optim_wrapper.optimizer.lr", float("nan"), "must be a number above 0"),
    ("optim_wrapper.optimizer.weight_decay", -1, "must be a number of at least 0"),
    ("optim_wrapper.optimizer", "SGD", "must be a dictionary"),
    ("optim_wrapper.optimizer.type", "SGDD", "no optimizer of that name; the nearest are SGD"),
    ("optim_wrapper.accumulative_counts", 0, "must be an integer of at least 1"),
    ("optim_wrapper.clip_grad.max_norm", -1, "must be a number above 0"),
    ("param_scheduler.0.begin", -1, "must be an integer of at least 0"),
    ("param_scheduler.1.end", 30, "must be above its begin, 30"),
    ("default_hooks.checkpoint.interval", 0, "must be an integer of at least 1, or -1"),
    ("default_hooks.logger.interval", 0, "must be an integer of at least 1"),
    ("log_processor.window_size", 0, "must be an integer of at least 1"),
    ("randomness.seed", -1, "must be an integer from 0 to 2^32 - 1"),
    ("model", 4, "must be a dictionary"),
    ("model.backbone", None, "must be a dictionary with a type"),
    ("model.roi_head.bbox_head.num_classes", 0, "must be at least 1"),
    ("param_scheduler", 5, "must be a dictionary or a list of dictionaries"),
    ("train_dataloader", [1], "must be a dictionary"),
    ("train_cfg", "x", "must be a dictionary"),
    ("optim_wrapper", 1.5, "must be a dictionary"),
    ("default_hooks", (), "must be a dictionary"),
    ("default_hooks.logger", -1, "must be a dictionary"),
    ("custom_hooks", 5, "must be a list of dictionaries"),
    ("custom_hooks", [dict(type="EMAHook"), [1]], "must be a dictionary"),
    ("test_dataloader", 1.5, "must be a dictionary"),
    ("val_dataloader.sampler", [], "must be a dictionary"),
    ("log_processor", [5], "must be a dictionary"),
    ("auto_scale_lr", 0, "must be a dictionary"),
    ("env_cfg", "x", "must be a dictionary"),
    ("visualizer", True, "must be a dictionary"),
    ("load_from", (1, 2), "must be a text"),
    ("default_scope", [[1]], "must be a text"),
    ("launcher", {"a": 1}, "must be a text"),
    ("work_dir", None, "must be a folder"),
    ("train_dataloader.batch_size", True, "must be an integer of at least 1"),
    ("train_dataloader.persistent_workers", 1, "must be True or False"),
    ("train_dataloader.drop_last", "no", "must be True or False"),
    ("val_dataloader.prefetch_factor", 0, "must be an integer of at least 1"),
    ("train_cfg.max_epochs", 0, "must be an integer of at least 1"),
    ("train_cfg.val_begin", -1, "must be an integer of at least 0"),
    ("optim_wrapper.optimizer.lr", 0, "must be a number above 0"),
    ("optim_wrapper.optimizer.lr", True, "must be a number above 0"),
    ("optim_wrapper.optimizer.lr", float("inf"), "must be a number above 0"),
    ("optim_wrapper.optimizer.momentum", -0.1, "must be a number of at least 0"),
    ("optim_wrapper.optimizer.type", "Qqqq", "no optimizer of that name"),
    ("param_scheduler.0.start_factor", 0, "must be above 0 and at most 1"),
    ("param_scheduler.0.start_factor", 1.01, "must be above 0 and at most 1"),
    ("param_scheduler.0.by_epoch", 0, "must be True or False"),
    ("param_scheduler.1.end", 0, "must be an integer of at least 1"),
    ("param_scheduler.1.T_max", 0, "must be an integer of at least 1"),
    ("param_scheduler.1.gamma", 0, "must be a number above 0"),
    ("param_scheduler.1.power", 0, "must be a number above 0"),
    ("param_scheduler.1.eta_min", -1, "must be a number of at least 0"),
    ("default_hooks.checkpoint.interval", -2, "must be an integer of at least 1, or -1"),
    ("default_hooks.checkpoint.max_keep_ckpts", 0, "must be an integer of at least 1, or -1"),
    ("randomness.seed", 2**32, "must be an integer from 0 to 2^32 - 1"),
    ("auto_scale_lr.base_batch_size", 0, "must be an integer of at least 1"),
]
LARGEST = {  # the last value that is still allowed, of each kind
    "train_dataloader.batch_size": 1,
    "test_dataloader.num_workers": 0,
    "val_dataloader.prefetch_factor": None,
    "train_cfg.val_begin": 0,
    "optim_wrapper.optimizer.lr": 1e-9,
    "optim_wrapper.optimizer.weight_decay": 0,
    "param_scheduler.0.begin": 0,
    "param_scheduler.0.end": 1,
    "param_scheduler.0.start_factor": 1,
    "param_scheduler.1.end": 31,  # begins at 30
    "default_hooks.checkpoint.interval": -1,
    "default_hooks.checkpoint.max_keep_ckpts": 1,
    "default_hooks.logger": None,
    "randomness.seed": 2**32 - 1,
    "model.roi_head.bbox_head.num_classes": 1,
}


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_a_wrong_value_is_named(key, value, message, small):
    config = copy.deepcopy(small)
    config.merge_from_dict({key: value})
    with pytest.raises(UserError) as caught:
        check_values(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith((f"{key}=", "num_classes=0 of ", "custom_hooks.1=[1]: "))
    assert str(caught.value).endswith(message) or "optimizer of that name; the nearest are SGD" in str(caught.value)


def test_values_at_their_limit_pass(small):
    config = copy.deepcopy(small)
    config.merge_from_dict(LARGEST)
    check_values(config)
    config.optim_wrapper.optimizer.type = torch.optim.SGD  # a class needs no name
    config.param_scheduler = config.param_scheduler[0]
    check_values(config)
    config.param_scheduler.end = 0
    with pytest.raises(UserError, match=r"^param_scheduler\.0\.end=0: must be an integer of at least 1$"):
        check_values(config)
    config.param_scheduler.update(begin=3, end=3)
    with pytest.raises(UserError, match=r"^param_scheduler\.0\.end=3: must be above its begin, 3$"):
        check_values(config)
    config.param_scheduler = None
    config.train_dataloader.batch_size = "x" * 200
    with pytest.raises(UserError, match=r"^train_dataloader\.batch_size='x{30} \.\.\. x{30}': must be"):
        check_values(config)


def test_an_optimizer_is_looked_for_in_the_scope_of_the_config(small):
    own = Registry("optimizer", parent=OPTIMIZERS, scope="scope_of_a_test", locations=[])
    own.register_module(name="OwnOptimizer", module=torch.optim.SGD)
    config = copy.deepcopy(small)
    config.optim_wrapper.optimizer.type = "OwnOptimizer"
    with pytest.raises(UserError, match=r"optim_wrapper\.optimizer\.type='OwnOptimizer': no optimizer of that name"):
        check_values(config)
    config.default_scope = "scope_of_a_test"
    check_values(config)


def test_workers_settings_are_off_where_there_are_no_workers(small):
    config = copy.deepcopy(small)
    check_values(config)
    assert config.train_dataloader.persistent_workers is True
    config.train_dataloader.num_workers = 0
    check_values(config)
    assert "persistent_workers" not in config.train_dataloader
    config.val_dataloader = dict(prefetch_factor=2, persistent_workers=True)  # mmengine's default is none
    config.test_dataloader = dict(num_workers=1, prefetch_factor=2)
    check_values(config)
    assert config.val_dataloader == {}
    assert config.test_dataloader == dict(num_workers=1, prefetch_factor=2)


def failing(error: Exception):
    def build() -> None:
        raise error

    return build


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("Foo is not in the mmdet::hook registry. Please check whether"), "x: Foo is not in the mmdet::hook"),
        (KeyError("inputs"), "x: key 'inputs' is missing"),
        (ZeroDivisionError("float division by zero"), "x: ZeroDivisionError: float division by zero"),
        (RuntimeError("negative dimension\nmore"), "x: negative dimension"),
        (UserError("depth=20: allowed are 18"), "depth=20: allowed are 18"),
        (RuntimeError("operator torchvision::nms does not exist"), "the installed torchvision was built for another"),
        (ModuleNotFoundError("No module named 'foo'", name="foo"), "x: No module named 'foo'"),
        (AssertionError("a\nb"), "x: AssertionError: a"),
    ],
)
def test_errors_of_building_become_one_line(error, line):
    with pytest.raises(UserError) as caught:
        user_fault("x", failing(error))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="loss is nan"):
        user_fault("x", failing(RunError("loss is nan")))


class Loop:
    """A training loop whose iterations fail when told to."""

    def __init__(self) -> None:
        self.fails = False

    def run_iter(self, batch: int) -> None:
        if self.fails:
            raise RuntimeError("expected input to have 1 channels, but got 32")


def test_only_the_first_iteration_is_guarded(tmp_path):
    class Runner:
        work_dir, model, cfg = str(tmp_path), nn.Module(), Config()

    first, later = Loop(), Loop()
    for loop in (first, later):
        CheckedBuilds._guard_first_iteration(Runner(), loop)
    first.fails = True
    with pytest.raises(UserError, match=r"^the first iteration failed: expected input .*first_iteration_error.txt\)$"):
        first.run_iter(0)
    assert "Traceback" in (tmp_path / "first_iteration_error.txt").read_text(encoding="utf-8")
    later.run_iter(0)
    later.run_iter(0)
    later.fails = True
    with pytest.raises(RuntimeError, match="channels") as caught:
        later.run_iter(1)
    assert not isinstance(caught.value, UserError)


class Samples:
    def __init__(self, count: int, good: bool = True) -> None:
        self.count, self.good = count, good

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> float:
        if not self.good:
            raise KeyError("gt_bboxes")
        return random.random() + np.random.rand() + float(torch.rand(1))  # noqa: NPY002


class Loader:
    def __init__(self, *arguments: Any) -> None:
        self.dataset = Samples(*arguments)


def test_the_first_sample_is_tried_and_random_numbers_stay():
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    try_sample("train_dataloader", Loader(3))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    with pytest.raises(
        UserError, match=r"^val_dataloader: the first sample cannot be prepared: key 'gt_bboxes' is missing"
    ):
        try_sample("val_dataloader", Loader(3, False))
    assert random.getstate() == states[0]
    with pytest.raises(UserError, match="val_dataloader: no picture is left"):
        try_sample("val_dataloader", Loader(0))
    try_sample("test_dataloader", None)
    with_a_stream = Loader(3, False)
    with_a_stream.dataset = iter([])  # has no length
    try_sample("test_dataloader", with_a_stream)
